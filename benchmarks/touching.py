"""Compare ways to part objects that touch; write benchmarks/results/touching.md.

    python benchmarks/touching.py

Each image is a group of drawn glands, larger than those that the model has learned from, so that its mask joins many of
them. A basin of the watershed is a summit of the distance to the background (as `--split-touching` has it), of the
probability above the threshold, or of their product; basins are joined as `alserve.touching` does. How high a summit
has to be, and how narrow a neck, is chosen for each way on one half of the images and measured on the other, and the
other way round.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from common import GLAS_SHAPE, RESULTS, machine, options, table, write_report

from alserve import load
from alserve.arrays import Float32, Mask
from alserve.modelfile import default_model
from alserve.touching import Numbers, part_basins

NECKS = (0.5, 0.75, 0.9, 0.97)
LEAST_AREA = 30
"""Pixels of the smallest object that counts."""

RESAMPLED = 1000
"""Times that the images are drawn anew for the interval of a difference."""


class Case(NamedTuple):
    """An image at half its size."""

    truth: Numbers
    mask: Mask
    certainty: Float32
    """Probability above the threshold, 0 to 1, of the pixels of the mask; elsewhere 0."""
    distance: Float32


WAYS: dict[str, tuple[Callable[[Case], Float32], Sequence[float]]] = {
    "distance": (lambda case: case.distance, (3, 5, 7, 10)),
    "probability": (lambda case: case.certainty, (0.3, 0.6, 0.8, 0.9)),
    "distance x probability": (lambda case: case.distance * case.certainty, (3, 5, 7, 10)),
}
"""Heights of a watershed, and what the lowest summit may be."""


def main() -> None:
    """Draw, predict, part in all ways, write the table."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=32)
    arguments = parser.parse_args()
    cases = draw(arguments.images)
    ways = {"not parted": [np.array([score(case.truth, numbered(case.mask)) for case in cases])]}
    for name, (heights, summits) in WAYS.items():
        ways[name] = [
            np.array([score(case.truth, part(heights(case), least, neck)) for case in cases])
            for least, neck in product(summits, NECKS)
        ]
    found = {name: held_out(scores) for name, scores in ways.items()}
    rows = [(name, *describe(scores, found["distance"])) for name, scores in found.items()]
    how = (
        f"`python benchmarks/touching.py`, {arguments.images} drawn images with "
        f"{found['distance'][:, 1].sum():.0f} glands, the demo model; {machine()}. An object is found where it and one "
        "of the truth have an IoU above 0.5; F1 is of all objects together. The difference has a 95 % interval over "
        "images."
    )
    titles = ("watershed of", "objects", "F1", "less than distance by")
    write_report(RESULTS / "touching.md", "Objects that touch: ways to part them", how, table(titles, rows))


def draw(number: int) -> list[Case]:
    """Draw images and predict them. As for `common.draw_jpeg`, `training` is imported here."""
    from training.data.tissue import CLASSES, draw_tissue

    predictor = load(default_model(), threads=1)
    height, width = (side // 2 * 2 for side in GLAS_SHAPE)
    cases = []
    for seed in range(number):
        image, glands = draw_tissue(np.random.default_rng([11, seed]), CLASSES[seed % len(CLASSES)], (height, width))
        threshold = predictor.spec.threshold
        whole = predictor.predict(image).probability()
        probability = np.asarray(cv2.resize(whole, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.float32)
        mask = numbered(probability > threshold) > 0
        certainty = np.where(mask, (probability - threshold) / (1 - threshold), 0).astype(np.float32)
        distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        cases.append(Case(numbered(glands)[::2, ::2], mask, certainty, np.asarray(distance, np.float32)))
    return cases


def numbered(mask: Mask) -> Numbers:
    """Return the connected parts of a mask that are large enough, numbered; the rest is 0."""
    _, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    small = np.bincount(numbers.ravel()) < LEAST_AREA
    return np.where(small[numbers], 0, numbers).astype(np.int32)


def part(heights: Float32, least: float, neck: float) -> Numbers:
    """Part what is above 0 by any heights, at saddles that are low beside the lower summit, if that is high enough."""
    return part_basins(heights, lambda width, saddle: width < 2 * least - 1 or saddle + 1 > neck * (width + 1))


def score(truth: Numbers, found: Numbers) -> tuple[int, int, int]:
    """Return how many objects are found, how many there are, and how many were said to be."""
    there, pixels = np.unique(truth, return_counts=True)
    said, counts = np.unique(found, return_counts=True)
    of_truth, of_found = dict(zip(there, pixels, strict=True)), dict(zip(said, counts, strict=True))
    pairs, shared = np.unique(np.stack([truth.ravel(), found.ravel()]), axis=1, return_counts=True)
    hits = sum(
        bool(one and other and both / (of_truth[one] + of_found[other] - both) > 0.5)
        for one, other, both in zip(*pairs, shared, strict=True)
    )
    return hits, len(there) - 1, len(said) - 1


def held_out(scores: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Return the score of each image by the values that are best on the other half of the images: [images, 3]."""
    half = np.arange(len(scores[0])) // 2 % 2  # both classes in both halves
    found = np.empty_like(scores[0])
    for which in (0, 1):
        best = max(scores, key=lambda each: f1(each[half != which]))
        found[half == which] = best[half == which]
    return found


def f1(scores: npt.NDArray[np.int64]) -> float:
    """Return the F1 of all objects of some images."""
    hits, there, said = scores.sum(axis=0)
    return float(2 * hits / (there + said))


def describe(scores: npt.NDArray[np.int64], distance: npt.NDArray[np.int64]) -> tuple[str, str, str]:
    """Return the number of objects, F1, and the difference to that of the distance."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(scores), size=len(scores)) for _ in range(RESAMPLED)]
    low, high = np.quantile([f1(distance[some]) - f1(scores[some]) for some in drawn], (0.025, 0.975))
    less = f1(distance) - f1(scores)
    return f"{scores[:, 2].sum()}", f"{f1(scores):.3f}", f"{less:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
