"""What the tests of the service share: drawn images, and how answers are read."""

import base64
import socket
import struct
import sys
import time
import zlib

import cv2
import httpx
import numpy as np
import numpy.typing as npt

SERVE = [sys.executable, "-m", "alserve", "serve"]

Pixels = npt.NDArray[np.uint8]


def drawing(height: int, width: int, seed: int = 0) -> Pixels:
    """Draw dark blobs on a bright ground: uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    image = random.integers(200, 256, (height, width, 3), dtype=np.uint8)
    for _ in range(6):
        centre = (int(random.integers(width)), int(random.integers(height)))
        colour = [int(value) for value in random.integers(0, 160, 3)]
        cv2.circle(image, centre, int(random.integers(8, 50)), colour, -1)
    return image


def encoded(image: Pixels, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1])


def decoded(png: bytes) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED))


def claiming_png(width: int, height: int) -> bytes:
    """A tiny PNG whose header claims many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


IMAGE = drawing(150, 217)

PNG = encoded(IMAGE)


def picture(part: dict[str, str]) -> Pixels:
    """The picture that a part of an answer holds."""
    return decoded(base64.b64decode(part["png"]))


def figure(client: httpx.Client, series: str) -> float:
    """The value of one series of the metrics; 0 if it is not there."""
    lines = client.get("/metrics").raise_for_status().text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.rsplit(" ", 1)[0] == series)


def assert_refused(answer: httpx.Response, status: int, words: str) -> None:
    """One line of JSON with one key, that says what is wrong and shows nothing of the inside."""
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.text
    body = answer.json()
    assert list(body) == ["error"]
    assert words in body["error"]
    assert not any(inside in body["error"] for inside in ("Traceback", ".py", "cv2", "starlette"))


def send_raw(client: httpx.Client, data: bytes, *, pause: float = 0, tail: bytes = b"") -> bytes:
    """Send bytes that no HTTP client would, wait, send the rest; return what comes back, nothing if the line is cut."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
        try:
            connection.sendall(data)
            time.sleep(pause)
            connection.sendall(tail)
            return connection.recv(65536)
        except ConnectionError:
            return b""
