"""What users really send: odd images that must be read rightly, broken ones, odd names, and no end of bytes."""

import io
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import httpx
import numpy as np
import pytest
from pictures import Pixels, encoded
from PIL import Image, ImageOps
from web import IMAGE, PNG, assert_refused, drawing, picture

from alserve.predictor import Predictor

GREY = np.asarray(Image.fromarray(IMAGE).convert("L"))


class Odd(NamedTuple):
    """A file, and the pixels that it stands for."""

    data: bytes
    pixels: Pixels
    warning: str | None = None


def rgb(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


def turned(orientation: int) -> Odd:
    exif = Image.Exif()
    exif[0x112] = orientation
    data = encoded(IMAGE, exif=exif)
    return Odd(data, rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def animated() -> Odd:
    frames = [Image.fromarray(drawing(150, 217, seed=seed)).convert("P") for seed in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    return Odd(data, rgb(Image.open(io.BytesIO(data))), "the first of several frames is used")


@cache
def odd_images() -> dict[str, Odd]:
    grey = np.repeat(GREY[..., None], 3, axis=2)
    palette = Image.fromarray(IMAGE).convert("P", palette=Image.Palette.ADAPTIVE)
    bits = Image.fromarray(GREY).convert("1")
    pixel, line = IMAGE[:1, :1], drawing(1, 5000, seed=2)
    return {
        "16-bit png": Odd(encoded(GREY.astype(np.uint16) * 257), grey),
        "16-bit tiff": Odd(encoded(GREY.astype(np.uint16) * 257, "TIFF"), grey),
        "grey": Odd(encoded(GREY), grey),
        "bilevel": Odd(encoded(bits), rgb(bits)),
        "palette": Odd(encoded(palette), rgb(palette)),
        "alpha": Odd(encoded(np.dstack([IMAGE, GREY])), IMAGE),
        "bmp": Odd(encoded(IMAGE, "BMP"), IMAGE),
        "lossless webp": Odd(encoded(IMAGE, "WEBP", lossless=True), IMAGE),
        "1 x 1": Odd(encoded(pixel), pixel),
        "1 x 5000": Odd(encoded(line), line),
        "5000 x 1": Odd(encoded(line.swapaxes(0, 1)), line.swapaxes(0, 1)),
        "animated gif": animated(),
        **{f"exif {orientation}": turned(orientation) for orientation in range(1, 9)},
    }


@pytest.mark.parametrize("name", odd_images())
def test_an_odd_image_is_answered_like_its_pixels(client: httpx.Client, predictor: Predictor, name: str) -> None:
    data, pixels, warning = odd_images()[name]
    expected = predictor.predict(np.ascontiguousarray(pixels))

    answer = client.post("/predict", files={"image": data}, params={"include": "mask"}).raise_for_status().json()

    assert (answer["height"], answer["width"]) == pixels.shape[:2]
    assert (answer["label"], answer["warning"]) == (expected.label, warning)
    assert answer["scores"] == pytest.approx(expected.scores, abs=1e-4)
    assert (picture(answer["mask"]) != expected.mask() * 255).mean() < 0.001


def test_cmyk_looks_like_its_rgb(client: httpx.Client) -> None:
    cmyk = encoded(Image.fromarray(IMAGE).convert("CMYK"), "JPEG", quality=95)

    answer = client.post("/overlay", content=cmyk, params={"threshold": 1}).raise_for_status()

    assert np.abs(rgb(Image.open(io.BytesIO(answer.content))).astype(int) - IMAGE).mean() < 8


def claiming_jpeg(side: int) -> bytes:
    """A small JPEG whose header claims many pixels."""
    data = encoded(IMAGE, "JPEG")
    start = data.index(b"\xff\xc0") + 5  # the frame's header: length, bits, height, width
    return data[:start] + struct.pack(">HH", side, side) + data[start + 4 :]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


BROKEN = {
    "float tiff": (encoded(GREY.astype(np.float32), "TIFF"), 400, "32 bits"),
    "tiff of nan": (encoded(np.full((20, 30), np.nan, np.float32), "TIFF"), 400, "32 bits"),
    "jpeg that claims 16000 x 16000": (claiming_jpeg(16_000), 413, "67,108,864"),
    "a flipped byte": (flipped(PNG), 400, "damaged"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", 415, "not an image"),
    "tga": (encoded(IMAGE, "TGA"), 415, "not an image"),
    "zero bytes": (b"", 400, "empty"),
    "zeros": (bytes(5000), 415, "not an image"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_image_is_refused_in_words_whatever_it_is_called(client: httpx.Client, case: str) -> None:
    data, status, words = BROKEN[case]

    assert_refused(client.post("/predict", files={"image": ("photo.png", data, "image/png")}), status, words)
    (result,) = client.post("/predict_batch", files=[("images", data)]).raise_for_status().json()["results"]
    assert result["status"] == status
    assert words in result["error"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../../etc/passwd", "image/jpg"),
        ("/dev/null", "image/jpeg"),
        ("x" * 250, "text/plain"),
        ("Drüse 腺 🔬.png", "application/x-php"),
        ("a;b=c&d.png", "image/jpg"),
        ("%00.png", "multipart/form-data"),
        ("con", ""),
    ],
)
def test_neither_name_nor_label_matters(client: httpx.Client, name: str, kind: str) -> None:
    alone = client.post("/predict", content=PNG).json()

    assert client.post("/predict", files={"image": (name, PNG, kind)}).raise_for_status().json() == alone
    (result,) = client.post("/predict_batch", files=[("images", (name, PNG, kind))]).json()["results"]
    assert result == {"name": name, **alone}


def test_a_name_that_is_no_text_does_no_harm(client: httpx.Client) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="\xff\xfe\x80.png"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}

    client.post("/predict", content=head + PNG + b"\r\n--b--\r\n", headers=kind).raise_for_status()


def test_a_body_of_300_megabytes_in_chunks_is_refused_on_the_way(client: httpx.Client) -> None:
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=60) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent, answer = 0, b"HTTP/1.1 413 "
        with suppress(ConnectionError):  # the line is cut, now and then before the answer is read
            while sent < 300 and not select.select([line], [], [], 0)[0]:
                line.sendall(chunk)
                sent += 1
            answer = line.recv(4096)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 100
    client.post("/predict", content=PNG).raise_for_status()


def test_slow_clients_hold_up_nobody(client: httpx.Client) -> None:
    def trickle(data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), -(-len(data) // 8)):
            time.sleep(0.1)
            yield data[start : start + -(-len(data) // 8)]

    address = (client.base_url.host, client.base_url.port)
    slow_heads = [socket.create_connection(address, timeout=60) for _ in range(50)]
    for head in slow_heads:
        head.sendall(b"POST /predict HTTP/1.1\r\nX-Slow: ")

    assert client.get("/readyz").status_code == 200
    slow = client.post("/predict", content=trickle(PNG)).raise_for_status()
    assert slow.json() == client.post("/predict", content=PNG).json()
    for head in slow_heads:
        head.close()
