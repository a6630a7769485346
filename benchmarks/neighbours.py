"""Measure how long neighbours take at the size of CUB; write the table to benchmarks/results/neighbours.md.

    python benchmarks/neighbours.py

Draws 4,794 JPEG files of 375 x 500 pixels in 200 classes, of CUB's size in bytes, then goes from the files to every
image's neighbours as a training run does. The files lie in a temporary folder, about 450 MB.
"""

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import RESULTS, machine, options, peak_memory, table, timed, write_report

from alserve.files import write_atomic
from alserve.geometry import resize, working_shape
from alserve.images.codec import encode_jpeg, read_image
from alserve.measure.dataset import Image
from alserve.parallel import ordered_map
from alserve.runtime.device import available_cores
from training.learning.neighbours import neighbours
from training.learning.similarity import describe_once

SIZE = (375, 500)
SHORT_SIDE = 256
K = 0.25
NOISE = 48
"""Grey levels; makes files as large as CUB's, which are about 95 kB."""


def main() -> None:
    """Draw, measure, write the table."""
    parser = options(__doc__)
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
    total = seconds["decode, resize, histograms"] + seconds["neighbours"]
    rows = [
        *((what, f"{taken:.1f} s", "") for what, taken in seconds.items()),
        ("**from files to neighbours**", f"**{total:.1f} s**", "60 s"),
        ("peak memory of the process, torch's libraries included", f"{peak_memory() / 1e9:.2f} GB", "1 GB"),
    ]
    how = (
        f"`python benchmarks/neighbours.py`; {arguments.images:,} drawn images of {SIZE[0]} x {SIZE[1]} pixels in "
        f"{arguments.classes} classes, JPEG files of {kilobytes:.0f} kB; short side {SHORT_SIDE}, k {K:g}; {machine()}."
    )
    found = table(("step", "found", "goal"), rows)
    write_report(RESULTS / "neighbours.md", "Neighbours at the size of CUB", how, found)


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
    """Return the seconds of every step, by name."""

    def describe(images: Iterable[Image]) -> Any:  # noqa: ANN401
        return describe_once(images, folder, "drawn")

    def decode() -> Iterator[Image]:
        return ordered_map(read, paths, available_cores())

    decoded = timed(deque, decode(), maxlen=0)
    described = timed(lambda: describe(decode()))
    again = timed(describe, ())
    return {
        "decode and resize, alone": decoded,
        "decode, resize, histograms": described,
        "neighbours": timed(neighbours, describe(()), labels, K, 0),
        "histograms of the same data, a second time": again,
    }


if __name__ == "__main__":
    main()
