"""What the service refuses, and that it lives on: bad input, too much, too slow, no token, a stop."""

import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server import clean_environment, free_port, living_workers, serving
from starlette.testclient import TestClient
from web import IMAGE, PNG, SERVE, assert_refused, claiming_png, drawing, encoded, figure, picture, send_raw

from alserve.errors import ModelError
from alserve.modelfile import default_model, write_metadata
from alserve.predictor import Predictor, load
from alserve.service.app import app, service
from alserve.service.settings import MAX_BODY_BYTES, MAX_IMAGES


def test_no_page_of_bentoml_answers_and_nothing_pickled_is_taken(client: httpx.Client) -> None:
    for page in ("/docs.json", "/schema.json", "/static_content/index.css", "/nowhere", "/predict/", "//model"):
        assert_refused(client.get(client.base_url.copy_with(path=page)), 404, "no such page")
    for kind in ("application/vnd.bentoml+pickle", "application/x-pickle", "application/python-pickle"):
        for page in ("/predict", "/segment", "/predict_batch", "/metrics"):
            assert_refused(client.post(page, content=PNG, headers={"Content-Type": kind}), 415, "pickled")


BAD_IMAGES = {
    "text": (b"this is no image", 415, "not an image"),
    "url": (b"http://127.0.0.1:9/photo.png", 415, "not an image"),
    "truncated jpeg": (encoded(IMAGE, ".jpg")[:-700], 400, "ends too early"),
    "truncated png": (PNG[:-900], 400, "ends too early"),
    "too many pixels": (claiming_png(16_000, 16_000), 413, "67,108,864"),
    "gif": (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", 415, "not an image"),
}


@pytest.mark.parametrize("path", ["/predict", "/segment", "/cam", "/overlay"])
@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_is_refused_and_the_next_request_works(client: httpx.Client, path: str, case: str) -> None:
    data, status, words = BAD_IMAGES[case]

    assert_refused(client.post(path, content=data), status, words)
    assert_refused(client.post(path, files={"image": data}), status, words)
    client.post(path, files={"image": PNG}).raise_for_status()


def test_a_request_without_an_image_is_refused(client: httpx.Client) -> None:
    assert_refused(client.post("/predict"), 400, "no image")
    assert_refused(client.post("/predict", files={"image": b""}), 400, "empty")
    assert_refused(client.post("/predict", files={"picture": PNG}), 400, "no field 'image'")
    two = client.post("/predict", files=[("image", PNG), ("image", PNG)])
    assert_refused(two, 400, "too many files")
    torn = client.post("/predict", content=b"--x\r\n", headers={"Content-Type": "multipart/form-data"})
    assert_refused(torn, 400, "boundary")


def test_an_option_that_comes_twice_is_refused(client: httpx.Client) -> None:
    query = [("threshold", "0.1"), ("threshold", "0.9")]
    for page in ("/predict", "/segment", "/overlay"):
        assert_refused(client.post(page, params=query, content=PNG), 422, "'threshold' comes more than once")


def test_a_url_is_refused_and_never_fetched(client: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/photo.png"
        as_text = client.post("/predict", files={"image": (None, url.encode())})
        as_form = client.post("/predict", data={"image": url})
        as_query = client.post("/predict", params={"image": url}, content=PNG)

        assert_refused(as_text, 400, "URLs are not fetched")
        assert_refused(as_form, 415, "not an image")
        assert_refused(as_query, 422, "unknown option 'image'")
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


def test_nothing_of_a_refused_request_stays_in_memory(client: httpx.Client) -> None:
    (worker,) = living_workers(client).values()
    body = PNG + bytes(150_000)

    def refuse(times: int) -> int:
        for _ in range(times):
            assert_refused(client.post("/predict", content=body, params={"shoes": 2}), 422, "shoes")
        return int(worker.memory_info().rss)

    before = refuse(50)
    assert refuse(400) - before < 20e6


def test_an_announced_size_is_refused_before_the_body_comes(client: httpx.Client) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_within_the_limit_is_read_to_its_end(client: httpx.Client) -> None:
    padded = PNG + bytes(MAX_BODY_BYTES - len(PNG))  # what follows a PNG's end is ignored

    answer = client.post("/predict", content=padded).raise_for_status().json()

    assert answer == client.post("/predict", content=PNG).json()


def test_an_image_is_not_written_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(app) as client:
        monkeypatch.setattr(tempfile, "tempdir", "/dev/null/no/such/folder")
        large = PNG + bytes(5 * 2**20)
        client.post("/predict", files={"image": large}).raise_for_status()
        client.post("/predict_batch", files=[("images", large)] * 2).raise_for_status()


def test_a_wrong_method_is_refused(client: httpx.Client) -> None:
    assert_refused(client.get("/predict"), 405, "Method Not Allowed")
    assert_refused(client.put("/segment", content=PNG), 405, "Method Not Allowed")
    assert_refused(client.post("/model"), 405, "Method Not Allowed")


def test_a_fault_of_our_own_shows_nothing_of_the_inside() -> None:
    with TestClient(app, raise_server_exceptions=False) as client:
        app.state.pipeline = "no pipeline at all"
        assert_refused(client.post("/predict", content=PNG), 500, "internal error")


def test_a_service_without_a_model_that_works_is_alive_but_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, **_: object) -> None:
        raise ModelError(f"{path} gives numbers that are not finite")

    monkeypatch.setattr("alserve.service.app.load_engine", fail)
    with TestClient(service.to_asgi(), base_url="http://localhost") as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        answer = client.post("/predict", content=PNG)
        assert_refused(answer, 503, "no model that works")
        assert answer.headers["retry-after"] == "1"


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200), position=st.integers(0, len(PNG)))
def test_no_bytes_break_the_service(client: httpx.Client, data: bytes, position: int) -> None:
    damaged = PNG[:position] + data + PNG[position + len(data) :]
    for content in (data, damaged):
        answer = client.post("/predict", content=content)
        if answer.status_code != 200:
            assert answer.status_code in {400, 413, 415}
            assert_refused(answer, answer.status_code, "")


def test_a_client_that_leaves_or_shouts_does_no_harm(client: httpx.Client) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        connection.sendall(head + b"Content-Length: 100000\r\n\r\n" + PNG[:5000])
    bomb = b"".join(b"X-Header-%d: %s\r\n" % (number, b"x" * 1000) for number in range(200))
    assert send_raw(client, head + bomb)[:10] in {b"", b"HTTP/1.1 4"}
    assert send_raw(client, b"\x16\x03\x01 no HTTP at all\r\n\r\n").startswith(b"HTTP/1.1 400")

    client.post("/predict", content=PNG).raise_for_status()
    assert figure(client, "alserve_requests_in_progress") == 1


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with little time and a model that needs more: it works at 64 times as many pixels."""
    folder = tmp_path_factory.mktemp("slow")
    path = default_model()
    spec = load(path).spec
    larger = spec.model_copy(update={"short_side": 8 * spec.short_side})
    (folder / "slow.onnx").write_bytes(write_metadata(path.read_bytes(), larger))
    with serving([*SERVE, "--model", "slow.onnx"], folder, ALSERVE_TIMEOUT="0.3", ALSERVE_QUEUE="0") as client:
        yield client


def test_a_request_past_its_deadline_is_stopped(slow: httpx.Client) -> None:
    start = time.monotonic()
    assert_refused(slow.post("/predict", content=PNG), 504, "0.3 s")
    assert time.monotonic() - start < 5
    several = slow.post("/predict_batch", files=[("images", PNG)]).raise_for_status().json()["results"]
    assert [result["status"] for result in several] == [504]
    assert figure(slow, 'alserve_stage_seconds_count{stage="inference"}') == 0  # no call came to its end
    assert figure(slow, 'alserve_image_errors_total{error="DeadlineError"}') == 2


def test_a_body_that_does_not_come_is_not_waited_for(slow: httpx.Client) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(PNG)}\r\n\r\n".encode()

    answer = send_raw(slow, head + PNG[:10], pause=1, tail=PNG[10:11])

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert slow.get("/readyz").status_code == 200


def test_a_body_that_trickles_is_not_waited_for_either(slow: httpx.Client) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(PNG)}\r\n\r\n".encode()
    with socket.create_connection((slow.base_url.host, slow.base_url.port), timeout=30) as line:
        line.sendall(head)
        start = time.monotonic()
        for byte in PNG:
            if select.select([line], [], [], 0.05)[0]:
                break
            line.sendall(bytes([byte]))
        assert line.recv(4096).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - start < 10


def test_overload_is_refused_at_once_and_goes_by(slow: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: slow.post("/predict", content=PNG), range(64)))

    assert {answer.status_code for answer in answers} == {429, 504}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert_refused(refused, 429, "too many requests")
    assert refused.headers["retry-after"] == "1"
    assert slow.get("/readyz").status_code == 200
    assert slow.post("/predict", content=PNG).status_code == 504


def test_with_a_token_only_health_is_open_and_batches_keep_answers_apart(tmp_path: Path, predictor: Predictor) -> None:
    token = "sesame-öffne-dich"  # noqa: S105
    images = {f"{seed}.png": drawing(150, 217, seed=seed) for seed in range(24)}
    with serving(SERVE, tmp_path, ALSERVE_TOKEN=token, ALSERVE_BATCH="4") as client:
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
        for given in (None, "Bearer wrong", token, "Basic c2VzYW1l"):
            headers = {"Authorization": given.encode()} if given else {}
            for page in ("/model", "/metrics", "/docs", "/openapi.json", "/schema.json"):
                refused = client.get(page, headers=headers)
                assert_refused(refused, 401, "Authorization: Bearer")
                assert refused.headers["www-authenticate"] == "Bearer"
            refused = client.post("/predict", content=PNG, headers=headers)
            assert_refused(refused, 401, "Authorization")
            assert refused.headers["connection"] == "close"  # or all of a large body would be taken in
        client.headers["Authorization"] = f"Bearer {token}"
        client.get("/model", headers={"Host": "any.example", "Origin": "http://any.example"}).raise_for_status()

        files = [("images", (name, encoded(image))) for name, image in images.items()]
        results = client.post("/predict_batch", files=files).raise_for_status().json()["results"]
        assert figure(client, "alserve_batch_images_count") == len(images)
        assert figure(client, 'alserve_batch_images_bucket{le="1.0"}') < len(images)
    for result, (name, image) in zip(results, images.items(), strict=True):
        expected = predictor.predict(image)
        assert (result["name"], result["label"]) == (name, expected.label)
        assert result["scores"] == pytest.approx(expected.scores, abs=1e-4)
        assert (picture(result["mask"]) != expected.mask() * 255).mean() < 0.001
    assert token not in "".join(path.read_text() for path in tmp_path.glob("*.log"))


def test_a_stop_finishes_what_is_under_way_and_no_folder_is_needed(tmp_path: Path) -> None:
    nowhere = {"BENTOML_HOME": "", "HOME": "/dev/null", "ALSERVE_TIMEOUT": "60"}
    with ThreadPoolExecutor(1) as pool, serving(SERVE, tmp_path, **nowhere) as client:
        files = [("images", (str(index), PNG)) for index in range(MAX_IMAGES)]
        under_way = pool.submit(httpx.post, f"{client.base_url}/predict_batch", files=files, timeout=60)
        while figure(client, 'alserve_stage_seconds_count{stage="encode"}') < 3:
            time.sleep(0.05)
        assert not under_way.done()
    results = under_way.result().raise_for_status().json()["results"]
    assert len(results) == MAX_IMAGES
    assert [result["error"] for result in results if "error" in result] == []


def start_and_fail(folder: Path, *arguments: str, **environment: str) -> str:
    """Start the service where it cannot start; return its one line."""
    run = subprocess.run(
        [*SERVE, *arguments],
        cwd=folder,
        env=clean_environment(folder, **environment),
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
    said = start_and_fail(tmp_path, "--port", port, ALSERVE_TOKEN="secret", ALSERVE_QUEUE="many")  # noqa: S106
    assert "ALSERVE_QUEUE cannot be used" in said
    assert "secret" not in said
    assert "unknown device 'tpu'" in start_and_fail(tmp_path, "--port", port, ALSERVE_DEVICE="tpu")
    assert "no such host" in start_and_fail(tmp_path, "--port", port, "--host", "nowhere.invalid")
