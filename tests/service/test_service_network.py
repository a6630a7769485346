"""The service against clients that are slow, many, or no friends: limits of connections and bodies, hosts, framing."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress

import httpx
import numpy as np
import pytest
from server import living_workers, serving
from web import PNG, SERVE, assert_refused, encoded, figure

from alserve.runtime.device import available_cores
from alserve.service.settings import MAX_BODY_BYTES, MAX_IMAGES

CONNECTIONS = 40
IDLE = 1
PATIENCE = 20
"""Seconds, much longer than any limit here."""

FORM = "multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with short limits, and with as many places as a batch may have images."""
    limits = {"CONNECTIONS": str(CONNECTIONS), "IDLE": str(IDLE), "TIMEOUT": "3", "RATE": "20000", "MEMORY": "32"}
    more = {"QUEUE": str(MAX_IMAGES - available_cores()), "HOSTS": "served.example"}
    settings = {f"ALSERVE_{name}": value for name, value in (limits | more).items()}
    with serving(SERVE, tmp_path_factory.mktemp("strict"), **settings) as client:
        yield client


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=PATIENCE)


def head(*lines: str, page: str = "/predict", host: str = "localhost", version: str = "1.1") -> bytes:
    return "\r\n".join((f"POST {page} HTTP/{version}", f"Host: {host}", *lines, "", "")).encode()


def announcing(size: int) -> bytes:
    return head(f"Content-Length: {size}")


def read_all(line: socket.socket) -> bytes:
    """What comes until the connection is closed; a timeout where it is not."""
    data = b""
    with suppress(ConnectionError):
        while part := line.recv(65536):
            data += part
    return data


def assert_closed_with(line: socket.socket, status: int, words: str) -> None:
    """One answer comes, of one line that says why, and nothing after it: the connection is closed."""
    start, _, body = read_all(line).partition(b"\r\n\r\n")
    assert start.startswith(f"HTTP/1.1 {status} ".encode()), start
    assert b"connection: close" in start.lower()
    (error,) = json.loads(body).values()
    assert words in error
    assert b"\n" not in body


def assert_works(client: httpx.Client) -> None:
    """An honest client, over a connection of its own, is answered."""
    with httpx.Client(base_url=client.base_url, timeout=PATIENCE) as honest:
        honest.post("/predict", content=PNG).raise_for_status()


@contextmanager
def many(client: httpx.Client, number: int, data: bytes) -> Iterator[list[socket.socket]]:
    """Connections that each have said `data`, and say no more."""
    with ExitStack() as stack:
        lines = [stack.enter_context(closing(connect(client))) for _ in range(number)]
        for line in lines:
            line.sendall(data)
        yield lines


def test_a_head_that_does_not_end_is_not_waited_for(strict: httpx.Client) -> None:
    with closing(connect(strict)) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
        assert_closed_with(line, 408, f"head did not arrive within {IDLE} s")
    with closing(connect(strict)) as silent:
        assert read_all(silent) == b""
    assert_works(strict)


def trickled(line: socket.socket, part: bytes) -> bytes:
    """The answer that comes while `part` is said ten times a second."""
    line.settimeout(0.1)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(ConnectionError):
            line.sendall(part)
        with suppress(TimeoutError):
            begun = line.recv(65536)
            line.settimeout(PATIENCE)
            return begun + read_all(line)
    return b""


def test_a_head_that_trickles_is_not_waited_for(strict: httpx.Client) -> None:
    with closing(connect(strict)) as line:
        line.sendall(b"GET /model HTTP/1.1\r\nX-Slow: ")
        assert trickled(line, b"x").startswith(b"HTTP/1.1 408 ")
    assert_works(strict)


def test_a_second_head_on_a_connection_has_its_time_too(strict: httpx.Client) -> None:
    ask = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    with closing(connect(strict)) as line:
        line.sendall(ask + b"\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\n\n"):
            answer += line.recv(65536)
        time.sleep(1.5 * IDLE)  # a pause between two requests is no late head
        line.sendall(ask)
        assert_closed_with(line, 408, "head did not arrive")


def test_a_body_that_pauses_is_not_waited_for(strict: httpx.Client) -> None:
    with closing(connect(strict)) as line:
        line.sendall(announcing(len(PNG)) + PNG[:100])
        assert_closed_with(line, 408, f"nothing more of the request came for {IDLE} s")
    assert_works(strict)


@pytest.mark.parametrize(
    ("part", "words"), [(500, b"less than 20000 bytes a second"), (20_000, b"did not arrive within 3 s")]
)
def test_a_body_that_trickles_is_not_waited_for(strict: httpx.Client, part: int, words: bytes) -> None:
    with closing(connect(strict)) as line:
        line.sendall(announcing(10**7))
        answer = trickled(line, bytes(part))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert words in answer
    assert_works(strict)


@pytest.mark.parametrize(
    "said", [b"", b"POST /predict HTTP/1.1\r\n", announcing(10**6), announcing(10**6) + bytes(20_000)]
)
def test_clients_that_say_little_keep_out_nobody(strict: httpx.Client, said: bytes) -> None:
    with many(strict, 3 * CONNECTIONS, said) as lines:
        for _ in range(3):
            assert_works(strict)
        answers = [read_all(line) for line in lines]
    made_room = answers.count(b"")  # one that may stay until its time is over is told so, if it said anything
    assert made_room >= 2 * CONNECTIONS


def test_unfinished_bodies_hold_bounded_memory_and_the_first_to_begin_goes(strict: httpx.Client) -> None:
    (worker,) = living_workers(strict).values()
    part = bytes(20 * 2**20)
    before = worker.memory_info().rss
    with many(strict, 4, announcing(MAX_BODY_BYTES) + part) as lines:
        assert worker.memory_info().rss - before < 3 * len(part)
        for line in lines[:3]:
            assert_closed_with(line, 429, "too much is being uploaded")
        assert_works(strict)


REFUSED = {
    "too large": (announcing(600 * 2**20), 413),
    "no such page": (head("Content-Length: 600000000", page="/nowhere"), 404),
    "wrong method": (head("Content-Length: 600000000", page="/model"), 405),
    "wrong option": (head("Content-Length: 33000000", page="/predict?shoes=2"), 422),
    "wrong host": (head("Content-Length: 600000000", host="evil.example"), 403),
    "pickled": (head("Content-Length: 600000000", "Content-Type: application/x-pickle"), 415),
    "health": (head("Content-Length: 600000000", page="/livez"), 405),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_body_of_a_refused_request_is_not_taken_in(strict: httpx.Client, case: str) -> None:
    start, status = REFUSED[case]

    with closing(connect(strict)) as line:
        line.sendall(start + bytes(1000))
        answer = read_all(line)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"connection: close" in answer.lower()
    assert_works(strict)


@pytest.mark.parametrize("case", ["too large", "wrong host", "health"])
def test_a_client_that_sends_on_after_a_refusal_is_cut_off(strict: httpx.Client, case: str) -> None:
    start, _ = REFUSED[case]

    assert sent_until_closed(strict, start) < 60 * 2**20
    assert_works(strict)


def sent_until_closed(client: httpx.Client, start: bytes) -> int:
    """Bytes of a body that a client gets rid of which sends on and on, and reads nothing."""
    block, sent = bytes(2**20), 0
    with closing(connect(client)) as line, suppress(ConnectionError):
        line.sendall(start)
        while sent < 600 * 2**20:
            line.sendall(block)
            sent += len(block)
    return sent


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"1;" + b"e" * 300 + b"\r\nx\r\n"])
def test_a_body_of_tiny_chunks_is_refused_and_a_short_one_read(strict: httpx.Client, chunk: bytes) -> None:
    with closing(connect(strict)) as line:
        line.sendall(head("Transfer-Encoding: chunked") + chunk * (300_000 // len(chunk)))
        assert_closed_with(line, 400, "chunks of the request are too small")
    bytewise = (PNG[place : place + 1] for place in range(1000))
    assert_refused(strict.post("/predict", content=bytewise), 400, "ends too early")
    strict.post("/predict", content=(PNG[place : place + 50] for place in range(0, len(PNG), 50))).raise_for_status()


def test_an_answer_that_nobody_fetches_is_not_kept(strict: httpx.Client) -> None:
    noise = encoded(np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8), ".bmp")
    (worker,) = living_workers(strict).values()
    with closing(socket.socket()) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect((strict.base_url.host, strict.base_url.port))
        line.sendall(head(f"Content-Length: {len(noise)}", page="/overlay") + noise)
        port, end = line.getsockname()[1], time.monotonic() + PATIENCE
        while any(there.raddr and there.raddr.port == port for there in worker.net_connections("tcp")):
            assert time.monotonic() < end
            time.sleep(0.1)
        answer = read_all(line)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(answer) < len(noise) / 2
    assert_works(strict)


def test_answers_that_are_fetched_slowly_hold_bounded_memory_and_the_first_goes(strict: httpx.Client) -> None:
    noise = encoded(np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), np.uint8), ".bmp")
    hurry, begun = threading.Event(), [threading.Event() for _ in range(3)]

    def fetch(line: socket.socket, first: threading.Event) -> int:
        """Bytes of an answer that is fetched at 1 MB/s, which is fast enough for the limit of the rate."""
        size = 0
        with suppress(ConnectionError):
            while part := line.recv(2**18):
                size += len(part)
                first.set()
                hurry.wait(0.25)
        return size

    with ExitStack() as stack, ThreadPoolExecutor(len(begun)) as pool:
        sizes = []
        for event in begun:
            line = stack.enter_context(closing(connect(strict)))
            line.sendall(head(f"Content-Length: {len(noise)}", "Connection: close", page="/overlay") + noise)
            sizes.append(pool.submit(fetch, line, event))
            assert event.wait(PATIENCE)
        hurry.set()
        first, second, third = (size.result() for size in sizes)
    assert max(first, second) < third
    assert third > len(noise) / 2
    assert_works(strict)


def test_the_answers_of_a_batch_hold_bounded_memory(strict: httpx.Client) -> None:
    image = encoded(np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8), ".jpg")
    files = [("images", ("a.jpg", image))] * 30
    query = {"include": "overlay"}

    answer = strict.post("/predict_batch", params=query, files=files, timeout=120)

    whole = [result for result in answer.json()["results"] if "error" not in result]
    refused = [result for result in answer.json()["results"] if "error" in result and result["status"] == 413]
    assert len(answer.content) < 40 * 2**20
    assert whole
    assert "send fewer images" in refused[0]["error"]
    assert_works(strict)


def test_a_body_of_two_lengths_is_refused_and_hides_no_second_request(strict: httpx.Client) -> None:
    hidden = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    both = head(f"Content-Length: {5 + len(hidden)}", "Transfer-Encoding: chunked")
    old = head("Transfer-Encoding: chunked", version="1.0")
    for start in (both, old):
        with closing(connect(strict)) as line:
            line.sendall(start + b"0\r\n\r\n" + hidden)
            assert_closed_with(line, 400, "length of the body is said in two ways")
    with closing(connect(strict)) as line:
        line.sendall(b"no HTTP at all\r\n\r\n")
        assert_closed_with(line, 400, "Invalid HTTP request")
    assert_works(strict)


def form_of(charset: str) -> bytes:
    """A request with a form whose names hold a byte that is no UTF-8, in a charset that stands there as it is given."""
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="\xff.png"\r\n\r\n'
    form = part + PNG + b"\r\n--b--\r\n"
    return head(f"Content-Type: {FORM}; {charset}", f"Content-Length: {len(form)}", "Connection: close") + form


@pytest.mark.parametrize(
    "charset",
    [
        "undefined",
        "utf-7",
        "punycode",
        "idna",
        "rot13",
        "hex",
        "base64",
        "zlib",
        "utf-16",
        "unicode_escape",
        "oem",
        "0",
    ],
)
def test_a_form_of_another_charset_is_refused(strict: httpx.Client, charset: str) -> None:
    for given in (charset, charset.upper(), f'"{charset}"'):
        with closing(connect(strict)) as line:
            line.sendall(form_of(f"charset={given}"))
            assert_closed_with(line, 400, f"charset cannot be {charset!r}")
    assert_works(strict)


@pytest.mark.parametrize(
    "odd",
    ["charset=", "charset", "charset=" + "x" * 9000, "charset=..", "charset*=hex''%00", "charset=utf-8; charset=hex"],
)
def test_an_odd_charset_does_no_harm(strict: httpx.Client, odd: str) -> None:
    with closing(connect(strict)) as line:
        line.sendall(form_of(odd))
        assert read_all(line).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "us-ascii", "ISO-8859-1"])
def test_a_form_of_a_usual_charset_is_read(client: httpx.Client, charset: str) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + PNG + b"\r\n--b--\r\n"

    client.post("/predict", content=form, headers={"Content-Type": f"{FORM}; charset={charset}"}).raise_for_status()


@pytest.mark.parametrize(
    ("headers", "welcome"),
    [
        ({"Host": "localhost"}, True),
        ({"Host": "LOCALHOST:80"}, True),
        ({"Host": "127.0.0.1:3000"}, True),
        ({"Host": "[::1]:3000"}, True),
        ({"Host": "served.example"}, True),
        ({"Host": "evil.example"}, False),
        ({"Host": "evil.example:3000"}, False),
        ({"Host": "localhost.evil.example"}, False),
        ({"Host": "localhost@evil.example"}, False),
        ({"Host": "192.0.2.7"}, False),
        ({"Host": "[::2]"}, False),
        ({"Host": ""}, False),
        ({"Host": "localhost:3000", "Origin": "http://localhost:3000"}, True),
        ({"Host": "localhost:3000", "Origin": "https://served.example"}, True),
        ({"Host": "localhost:3000", "Origin": "http://localhost:8888"}, False),
        ({"Host": "localhost:3000", "Origin": "http://evil.example"}, False),
        ({"Host": "localhost:3000", "Origin": "http://localhost:3000.evil.example"}, False),
        ({"Host": "localhost:3000", "Origin": "null"}, False),
    ],
)
def test_only_known_hosts_and_origins_are_answered(
    strict: httpx.Client, headers: dict[str, str], *, welcome: bool
) -> None:
    for method, page in (("POST", "/predict"), ("GET", "/model"), ("GET", "/"), ("GET", "/metrics")):
        answer = strict.request(method, page, content=PNG if method == "POST" else None, headers=headers)
        if welcome:
            answer.raise_for_status()
        else:
            assert_refused(answer, 403, "ALSERVE_HOSTS")
    assert strict.get("/readyz", headers=headers).status_code == 200  # a probe asks by the address of its container


def test_a_batch_takes_a_place_for_each_image(strict: httpx.Client) -> None:
    decoded = 'alserve_stage_seconds_count{stage="decode"}'
    before = figure(strict, decoded)
    files = [("images", encoded(np.full((2000, 2000, 3), 200, np.uint8)))] * MAX_IMAGES
    everything = {"include": "mask,cam,overlay,probability"}
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(httpx.post, f"{strict.base_url}/predict_batch", files=files, params=everything, timeout=60)
        while figure(strict, decoded) == before:
            assert not batch.done()
        assert_refused(strict.post("/predict", content=PNG), 429, "too many requests")
        refused = strict.post("/predict_batch", files=[("images", PNG)] * 2)
        assert_refused(refused, 429, "too many requests")
    assert len(batch.result().raise_for_status().json()["results"]) == MAX_IMAGES
    assert_works(strict)
