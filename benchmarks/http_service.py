"""Measure the service over HTTP beside the folder command, the Predictor alone, and a hand-written endpoint.

    python benchmarks/http_service.py

Client and servers share this machine. The table goes to benchmarks/results/http.md.
"""

import argparse
import http.client
import os
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from alserve import Predictor, load
from alserve.files import write_atomic
from alserve.folder.segment import segment
from alserve.images.codec import decode, encode_jpeg, encode_png, to_grey
from alserve.modelfile import default_model
from alserve.runtime.device import available_cores, describe_cpu
from training.data.tissue import CLASSES, draw_tissue

HERE = Path(__file__).parent
SHAPE = (522, 775)
"""Height and width of a GlaS image, in pixels."""
BOUNDARY = "benchmark"
LOAD = 0.7
"""Share of the highest throughput at which the fixed schedule asks."""


def main() -> None:
    """Draw images, start both servers, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="drawn images")
    parser.add_argument("--requests", type=int, default=512, help="requests of one measurement")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; the table gives medians")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "http.md")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = [draw(folder / "images" / f"{number:03}.jpg", number) for number in range(arguments.images)]
        with (
            alserve_server(folder) as ours,
            alserve_server(folder, ALSERVE_DEVICE="openvino") as openvino,
            fastapi_server(folder) as theirs,
        ):
            figures = measure(folder, images, ours, openvino, theirs, arguments)
    report = table(figures, arguments)
    write_atomic(arguments.out, report.encode())
    print(report)


def draw(path: Path, seed: int, shape: tuple[int, int] = SHAPE) -> bytes:
    """Draw a JPEG of that height and width; return its bytes."""
    image, _ = draw_tissue(np.random.default_rng(seed), CLASSES[seed % len(CLASSES)], shape)
    data = encode_jpeg(image)
    write_atomic(path, data)
    return data


def measure(
    folder: Path, images: Sequence[bytes], ours: int, openvino: int, theirs: int, arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Return all figures by name, one for each round; what is compared is measured in turn."""
    agreement(images[0], ours, openvino, theirs)
    alone = load(default_model())
    worker = load(default_model(), threads=1)
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    for number in range(arguments.rounds + 1):
        batch = timed(segment, folder / "images", out=folder / f"masks-{number}", model=worker, save="mask")
        served = timed(closed_loop, ours, images, arguments.requests, arguments.clients)
        by_hand = timed(closed_loop, theirs, images, arguments.requests, arguments.clients)
        quicker = timed(closed_loop, openvino, images, arguments.requests, arguments.clients)
        rate = arguments.requests / served
        late = fixed_schedule(ours, images, arguments.requests, rate * LOAD)
        with ThreadPoolExecutor(1) as client:
            pairs = client.map(lambda image: (timed(ask, ours, image), timed(segment_alone, alone, image)), images)
            one, bare = zip(*pairs, strict=True)
        if number == 0:
            continue  # the first round warms everything up
        note("folder", len(images) / batch)
        note("service", rate)
        note("by hand", arguments.requests / by_hand)
        note("openvino", arguments.requests / quicker)
        note("p50", float(np.percentile(late, 50)))
        note("p99", float(np.percentile(late, 99)))
        note("one client", statistics.median(one))
        note("alone", statistics.median(bare))
    return figures


def agreement(image: bytes, *ports: int) -> None:
    """Check that all servers do the same work."""
    first, *others = (cv2.imdecode(np.frombuffer(ask(port, image), np.uint8), cv2.IMREAD_UNCHANGED) for port in ports)
    differing = max(float((first != other).mean()) for other in others)
    if differing > 0.02:
        raise SystemExit(f"the servers' masks differ in {differing:.1%} of the pixels: no fair comparison")


def table(figures: dict[str, list[float]], arguments: argparse.Namespace) -> str:
    """Return the figures as a table in Markdown."""

    def ratio(over: str, under: str) -> list[float]:
        return [first / second for first, second in zip(figures[over], figures[under], strict=True)]

    def middle(name: str) -> float:
        return statistics.median(figures[name])

    tail = ratio("p99", "p50")
    overhead = [1000 * (one - bare) for one, bare in zip(figures["one client"], figures["alone"], strict=True)]
    clients = f"{arguments.clients} clients"
    rows = [
        (
            f"images a second at {clients}, over `alserve segment`",
            f"{middle('service'):.1f} / {middle('folder'):.1f}",
            ratio("service", "folder"),
            ">= 0.85",
        ),
        (
            f"p99 over p50 at {LOAD:.0%} load, fixed schedule",
            f"{1000 * middle('p99'):.0f} / {1000 * middle('p50'):.0f} ms",
            tail,
            "<= 2.5",
        ),
        (
            "overhead at one client over the Predictor alone, ms",
            f"{1000 * middle('one client'):.1f} - {1000 * middle('alone'):.1f} ms",
            overhead,
            "<= 10",
        ),
        (
            f"images a second at {clients}, over FastAPI and ONNX Runtime by hand",
            f"{middle('service'):.1f} / {middle('by hand'):.1f}",
            ratio("service", "by hand"),
            ">= 1.2",
        ),
        (
            "the same with `ALSERVE_DEVICE=openvino`",
            f"{middle('openvino'):.1f} / {middle('by hand'):.1f}",
            ratio("openvino", "by hand"),
            "",
        ),
    ]
    lines = ["| measure | figures | median | smallest to largest | goal |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {parts} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} | {goal} |"
        for name, parts, values, goal in rows
    ]
    conditions = (
        f"{arguments.rounds} rounds of {arguments.requests} requests, {arguments.images} drawn JPEGs of "
        f"{SHAPE[1]} x {SHAPE[0]} pixels, `POST /segment`, {default_model().name}; client and server on the same "
        f"{available_cores()} cores ({describe_cpu()}), Python {platform.python_version()}."
    )
    return "\n".join(["# The service over HTTP", "", conditions, "", *lines, ""])


def closed_loop(port: int, images: Sequence[bytes], requests: int, clients: int) -> None:
    """Let some clients ask, each as soon as it has its answer."""
    numbers = count()

    def work() -> None:
        while (number := next(numbers)) < requests:
            ask(port, images[number % len(images)])

    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(work) for _ in range(clients)]:
            done.result()


def fixed_schedule(port: int, images: Sequence[bytes], requests: int, rate: float) -> list[float]:
    """Ask at fixed times, however long the answers take.

    Args:
        port: Where the server listens.
        images: What to send, in turn.
        requests: How often.
        rate: Requests a second.

    Returns:
        Seconds from the time a request was due to its answer, for each.
    """
    start = time.perf_counter()

    def work(number: int) -> float:
        due = start + number / rate
        time.sleep(max(0, due - time.perf_counter()))
        ask(port, images[number % len(images)])
        return time.perf_counter() - due

    with ThreadPoolExecutor(64) as pool:
        return list(pool.map(work, range(requests)))


def segment_alone(predictor: Predictor, image: bytes) -> bytes:
    """Do what the service does for a mask, without a service."""
    return encode_png(to_grey(predictor.predict(decode(image)).mask()))


def timed(work: Callable[..., object], *arguments: Any, **more: Any) -> float:  # noqa: ANN401
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work(*arguments, **more)
    return time.perf_counter() - start


_own = threading.local()


def ask(port: int, image: bytes) -> bytes:
    """Post an image over this thread's own connection; return the mask's PNG."""
    status, data = post(port, image)
    if status != http.HTTPStatus.OK:
        raise SystemExit(f"port {port} answered {status}: {data[:200]!r}")
    return data


def post(port: int, image: bytes, *, keep: bool = True) -> tuple[int, bytes]:
    """Post an image over this thread's own connection, kept for the next; return the answer's status and body."""
    connections: dict[int, http.client.HTTPConnection] = _own.__dict__.setdefault("connections", {})
    connection = connections.setdefault(port, http.client.HTTPConnection("127.0.0.1", port, timeout=120))
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    kept = connection.sock is not None
    try:
        connection.request("POST", "/segment", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        if kept:  # the server closes lines that were idle for some seconds
            return post(port, image, keep=keep)
        raise
    finally:
        if not keep:
            connection.close()


@contextmanager
def alserve_server(folder: Path, **environment: str) -> Iterator[int]:
    """Run `alserve serve`, with more environment variables; yield its port."""
    log = folder / f"alserve-{'-'.join(environment.values())}.log"
    with running([sys.executable, "-m", "alserve", "serve"], log, **environment) as port:
        yield port


@contextmanager
def fastapi_server(folder: Path) -> Iterator[int]:
    """Run the hand-written endpoint; yield its port."""
    command = ["uvicorn", "fastapi_endpoint:app", "--app-dir", str(HERE), "--no-access-log"]
    with running([sys.executable, "-m", *command], folder / "theirs.log") as port:
        yield port


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[int]:
    """Run a server on a free port until the block ends; the block begins once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {**os.environ, "MODEL": str(default_model()), **environment}
    with log.open("wb") as output:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output, env=variables)
    try:
        until = time.monotonic() + 90
        while not is_ready(port):
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command} does not start:\n{log.read_text()}")
            time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait()


def is_ready(port: int) -> bool:
    """Return whether a server answers its /readyz."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
