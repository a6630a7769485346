"""Measure the service over HTTP beside the folder command, the Predictor alone, and a hand-written endpoint.

    python benchmarks/http_service.py

Client and servers share this machine. The table goes to benchmarks/results/http.md.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from common import GLAS_SHAPE, RESULTS, draw_jpeg, machine, options, table, timed, write_report
from servers import alserve_server, ask, closed_loop, fastapi_server

from alserve import Predictor, load
from alserve.folder.segment import segment
from alserve.images.codec import decode, encode_png, to_grey
from alserve.modelfile import default_model

LOAD = 0.7
"""Rate of the fixed schedule, as a share of the highest throughput."""


def main() -> None:
    """Draw images, start both servers, measure, write the table."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=64, help="drawn images")
    parser.add_argument("--requests", type=int, default=512, help="requests of one measurement")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; the table gives medians")
    parser.add_argument("--out", type=Path, default=RESULTS / "http.md")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = [draw_jpeg(folder / "images" / f"{number:03}.jpg", number) for number in range(arguments.images)]
        with (
            alserve_server(folder) as ours,
            alserve_server(folder, ALSERVE_DEVICE="openvino") as openvino,
            fastapi_server(folder) as theirs,
        ):
            figures = measure(folder, images, ours, openvino, theirs, arguments)
    how = (
        f"{arguments.rounds} rounds of {arguments.requests} requests, {arguments.images} drawn JPEGs of "
        f"{GLAS_SHAPE[1]} x {GLAS_SHAPE[0]} pixels, `POST /segment`, {default_model().name}; client and server on the "
        f"same {machine()}."
    )
    titles = ("measure", "figures", "median", "smallest to largest", "goal")
    write_report(arguments.out, "The service over HTTP", how, table(titles, rows(figures, arguments.clients)))


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


def rows(figures: dict[str, list[float]], clients: int) -> list[tuple[str, ...]]:
    """Return the rows of the table."""

    def ratio(over: str, under: str) -> list[float]:
        return [first / second for first, second in zip(figures[over], figures[under], strict=True)]

    def middle(name: str) -> float:
        return statistics.median(figures[name])

    tail = ratio("p99", "p50")
    overhead = [1000 * (one - bare) for one, bare in zip(figures["one client"], figures["alone"], strict=True)]
    found = [
        (
            f"images a second at {clients} clients, over `alserve segment`",
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
            f"images a second at {clients} clients, over FastAPI and ONNX Runtime by hand",
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
    return [
        (name, parts, f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}", goal)
        for name, parts, values, goal in found
    ]


def fixed_schedule(port: int, images: Sequence[bytes], requests: int, rate: float) -> list[float]:
    """Send requests at fixed times, however long the answers take.

    Args:
        port: Where the server listens.
        images: What to send, in turn.
        requests: How many.
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


if __name__ == "__main__":
    main()
