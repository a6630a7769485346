"""The service as its users meet it: a real process, real requests, compared with the Predictor in here."""

import base64
import json
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server import clean_environment, free_port, serving
from starlette.testclient import TestClient

from alserve.modelfile import METADATA_KEY, default_model, from_metadata, seal
from alserve.predictor import Predictor, load
from alserve.service import LABEL_HEADER, MAX_BODY_BYTES, app

SERVE = [sys.executable, "-m", "alserve.cli", "serve"]

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
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)


def claiming_png(width: int, height: int) -> bytes:
    """A tiny PNG whose header claims many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


IMAGE = drawing(150, 217)
PNG = encoded(IMAGE)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(SERVE, tmp_path_factory.mktemp("service")) as client:
        yield client


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load(default_model())


def test_predict_answers_what_the_predictor_says(client: httpx.Client, predictor: Predictor) -> None:
    answer = client.post("/predict", files={"image": PNG}).raise_for_status().json()
    expected = predictor.predict([IMAGE])[0]

    assert answer["label"] == expected.label
    assert answer["scores"] == pytest.approx(expected.scores, abs=1e-5)
    assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-5)
    mask = decoded(base64.b64decode(answer["mask"]["png"]))
    np.testing.assert_array_equal(mask, expected.mask() * 255)
    assert answer["mask"]["foreground"] == pytest.approx((mask > 0).mean())
    assert answer["mask"]["threshold"] == predictor.spec.threshold
    assert (answer["mask"]["height"], answer["mask"]["width"]) == IMAGE.shape[:2] == mask.shape
    cam = decoded(base64.b64decode(answer["cam"]["png"]))
    np.testing.assert_allclose(cam, expected.cam() * 255, atol=0.51)
    assert answer["cam"]["class"] == expected.label


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", None])
def test_a_raw_body_is_answered_like_a_form(client: httpx.Client, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    raw = client.post("/predict", content=PNG, headers=headers).raise_for_status()
    form = client.post("/predict", files={"image": ("a name.png", PNG, "image/png")}, data={"note": "kept out"})

    assert raw.json() == form.raise_for_status().json()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (40, 900), (301, 64)])
def test_segment_answers_a_mask_of_the_images_own_size(
    client: httpx.Client, predictor: Predictor, height: int, width: int
) -> None:
    image = drawing(height, width, seed=3)
    answer = client.post("/segment", files={"image": encoded(image)}).raise_for_status()
    expected = predictor.predict([image])[0]

    assert answer.headers["content-type"] == "image/png"
    assert unquote(answer.headers[LABEL_HEADER]) == expected.label
    np.testing.assert_array_equal(decoded(answer.content), expected.mask() * 255)


def test_model_says_what_runs_and_where(client: httpx.Client, predictor: Predictor) -> None:
    answer = client.get("/model").raise_for_status().json()

    assert (answer.pop("sha256"), answer.pop("device")) == (predictor.engine.sha256, predictor.engine.device)
    spec = from_metadata({METADATA_KEY: json.dumps(answer)}, "the answer")
    assert spec == predictor.spec


def test_health_and_metrics_are_there(client: httpx.Client) -> None:
    client.post("/predict", content=PNG).raise_for_status()

    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    assert 'endpoint="/predict"' in client.get("/metrics").raise_for_status().text


def assert_refused(answer: httpx.Response, status: int, words: str) -> None:
    """One line of JSON with one key, that says what is wrong and shows nothing of the inside."""
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.text
    body = answer.json()
    assert list(body) == ["error"]
    assert words in body["error"]
    assert not any(inside in body["error"] for inside in ("Traceback", ".py", "cv2", "starlette"))


BAD_IMAGES = {
    "text": (b"this is no image", "not an image"),
    "url": (b"http://127.0.0.1:9/photo.png", "not an image"),
    "truncated jpeg": (encoded(IMAGE, ".jpg")[:-700], "ends too early"),
    "truncated png": (PNG[:-900], "ends too early"),
    "too many pixels": (claiming_png(16_000, 16_000), "50,000,000"),
    "gif": (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "not an image"),
}


@pytest.mark.parametrize("path", ["/predict", "/segment"])
@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_is_refused_and_the_next_request_works(client: httpx.Client, path: str, case: str) -> None:
    data, words = BAD_IMAGES[case]

    assert_refused(client.post(path, content=data), 400, words)
    assert_refused(client.post(path, files={"image": data}), 400, words)
    client.post(path, files={"image": PNG}).raise_for_status()


def test_a_request_without_an_image_is_refused(client: httpx.Client) -> None:
    assert_refused(client.post("/predict"), 400, "no image")
    assert_refused(client.post("/predict", files={"image": b""}), 400, "empty")
    assert_refused(client.post("/predict", files={"picture": PNG}), 400, "no field 'image'")
    two = client.post("/predict", files=[("image", PNG), ("image", PNG)])
    assert_refused(two, 400, "Too many files")
    torn = client.post("/predict", content=b"--x\r\n", headers={"Content-Type": "multipart/form-data"})
    assert_refused(torn, 400, "boundary")


def test_a_url_is_refused_and_never_fetched(client: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/photo.png"
        as_text = client.post("/predict", files={"image": (None, url.encode())})
        as_query = client.post("/predict", params={"image": url}, data={"image": url})

        assert_refused(as_text, 400, "URLs are not fetched")
        assert_refused(as_query, 400, "not an image")
        with pytest.raises(TimeoutError):
            trap.accept()


def test_a_body_that_is_too_large_is_refused_however_it_comes(client: httpx.Client) -> None:
    block = bytes(2**20)
    blocks = MAX_BODY_BYTES // len(block) + 1

    announced = client.post("/predict", content=block * blocks)
    chunked = client.post("/predict", content=(block for _ in range(blocks)))
    form = client.post("/segment", files={"image": block * blocks})

    for answer in (announced, chunked, form):
        assert_refused(answer, 413, "larger than 32 MiB")
    client.post("/predict", content=PNG).raise_for_status()


def test_an_announced_size_is_refused_before_the_body_comes(client: httpx.Client) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_within_the_limit_is_read_to_its_end(client: httpx.Client) -> None:
    padded = PNG + bytes(MAX_BODY_BYTES - len(PNG))  # what follows a PNG's end is ignored

    answer = client.post("/predict", content=padded).raise_for_status().json()

    assert answer == client.post("/predict", content=PNG).json()


def test_a_wrong_method_is_refused(client: httpx.Client) -> None:
    assert_refused(client.get("/predict"), 405, "Method Not Allowed")
    assert_refused(client.put("/segment", content=PNG), 405, "Method Not Allowed")
    assert_refused(client.post("/model"), 405, "Method Not Allowed")
    assert client.get("/nowhere").status_code == 404


def test_a_fault_of_our_own_shows_nothing_of_the_inside() -> None:
    with TestClient(app, raise_server_exceptions=False) as client:
        app.state.predictor = "no predictor at all"
        assert_refused(client.post("/predict", content=PNG), 500, "internal error")


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200), position=st.integers(0, len(PNG)))
def test_no_bytes_break_the_service(client: httpx.Client, data: bytes, position: int) -> None:
    damaged = PNG[:position] + data + PNG[position + len(data) :]
    for content in (data, damaged):
        answer = client.post("/predict", content=content)
        if answer.status_code != 200:
            assert_refused(answer, 400, "")


def test_parallel_requests_get_their_own_answers(client: httpx.Client) -> None:
    images = [encoded(drawing(120 + 30 * index, 260 - 20 * index, seed=index)) for index in range(8)]
    images[5] = b"one bad image among them"
    one_by_one = [client.post("/predict", files={"image": image}) for image in images]

    with ThreadPoolExecutor(len(images)) as pool:
        together = list(pool.map(lambda image: client.post("/predict", files={"image": image}), images))

    assert [answer.status_code for answer in together] == [200] * 5 + [400] + [200] * 2
    assert [answer.json() for answer in together] == [answer.json() for answer in one_by_one]
    assert len({answer.text for answer in together}) == len(images)


def test_a_model_by_name_and_a_label_beyond_latin(tmp_path: Path) -> None:
    path = default_model()
    spec = load(path).spec
    names = tuple(f"腺癌 {number}" for number in range(len(spec.classes)))
    (tmp_path / "other.onnx").write_bytes(seal(path.read_bytes(), spec.model_copy(update={"classes": names})))

    with serving([*SERVE, "--model", "other.onnx", "--host", "localhost"], tmp_path) as client:
        assert tuple(client.get("/model").json()["classes"]) == names
        label = unquote(client.post("/segment", content=PNG).raise_for_status().headers[LABEL_HEADER])
        assert label == client.post("/predict", content=PNG).json()["label"]
        assert label in names


def start_and_fail(folder: Path, *arguments: str) -> str:
    """Start the service where it cannot start; give its one line."""
    run = subprocess.run(
        [*SERVE, *arguments],
        cwd=folder,
        env=clean_environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


def test_a_start_that_cannot_work_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}: Address already in use" in start_and_fail(tmp_path, "--port", port)
    port = str(free_port())
    assert "missing.onnx" in start_and_fail(tmp_path, "--port", port, "--model", "missing.onnx")
    assert "notes.txt" in start_and_fail(tmp_path, "--port", port, "--model", "notes.txt")
    assert "no such host" in start_and_fail(tmp_path, "--port", port, "--host", "nowhere.invalid")
