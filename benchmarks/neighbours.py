"""Measure how long neighbours take at the size of CUB; write the table to benchmarks/results/neighbours.md.

    python benchmarks/neighbours.py

Draws 4,794 JPEG files of 375 x 500 pixels in 200 classes, of CUB's size in bytes, then goes from the files to every
image's neighbours as a training run does. The files lie in a temporary folder, about 450 MB.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from alserve.files import write_atomic
from alserve.geometry import resize, working_shape
from alserve.images.codec import encode_jpeg, read_image
from alserve.measure.dataset import Image
from alserve.parallel import ordered_map
from alserve.runtime.device import available_cores, describe_cpu
from training.learning.similarity import describe_once, neighbours

RESULTS = Path(__file__).parent / "results"
SIZE = (375, 500)
SHORT_SIDE = 256
K = 0.25
NOISE = 48
"""Grey levels; makes files as large as CUB's, which are about 95 kB."""


def main() -> None:
    """Draw, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4794)
    parser.add_argument("--classes", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{index:05}.jpg" for index in range(arguments.images)]
        for index, path in enumerate(paths):
            write_atomic(path, encode_jpeg(draw(index)))
        seconds = measure(paths, [index % arguments.classes for index in range(arguments.images)], folder)
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
    text = report(arguments.images, arguments.classes, kilobytes, seconds)
    write_atomic(RESULTS / "neighbours.md", text.encode())
    print(text)


def draw(index: int) -> Image:
    """Draw soft blobs of colour under noise: uint8 [375, 500, 3], RGB."""
    rng = np.random.default_rng(index)
    coarse = rng.integers(0, 256 - NOISE, (5, 6, 3), np.uint8)
    blobs = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(blobs + rng.integers(0, NOISE, blobs.shape, np.uint8), np.uint8)


def read(path: Path) -> Image:
    """Decode a file, and resize it as training does."""
    image = read_image(path)
    return resize(image, working_shape(*image.shape[:2], SHORT_SIDE))


def measure(paths: list[Path], labels: list[int], folder: Path) -> dict[str, float]:
    """Give the seconds of every step, by name."""
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[what] = time.perf_counter() - started

    with timed("decode and resize, alone"):
        for _ in ordered_map(read, paths, available_cores()):
            pass
    with timed("decode, resize, histograms"):
        counts = describe_once(ordered_map(read, paths, available_cores()), folder, "drawn")
    with timed("neighbours"):
        neighbours(counts, labels, K)
    with timed("histograms of the same data, a second time"):
        describe_once((), folder, "drawn")
    return seconds


def report(images: int, classes: int, kilobytes: float, seconds: dict[str, float]) -> str:
    """Give the figures as a table in Markdown."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    total = seconds["decode, resize, histograms"] + seconds["neighbours"]
    return "\n".join(
        [
            "# Neighbours at the size of CUB",
            "",
            f"`python benchmarks/neighbours.py`; {images:,} drawn images of {SIZE[0]} x {SIZE[1]} pixels in {classes}",
            f"classes, JPEG files of {kilobytes:.0f} kB; {available_cores()} cores ({describe_cpu()}),",
            f"short side {SHORT_SIDE}, k {K:g}.",
            "",
            "| step | found | goal |",
            "|---|---|---|",
            *(f"| {what} | {taken:.1f} s | |" for what, taken in seconds.items()),
            f"| **from files to neighbours** | **{total:.1f} s** | 60 s |",
            f"| peak memory of the process, torch's libraries included | {peak:.2f} GB | 1 GB |",
            "",
        ]
    )


if __name__ == "__main__":
    main()
