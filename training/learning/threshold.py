"""The mask threshold, from held-out images whose mask is known."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from alserve.arrays import Float32, Float64, Mask
from alserve.images.codec import to_grey

THRESHOLDS = np.round(np.arange(0.05, 0.995, 0.01), 2)
"""The values tried: 0.05, 0.06 .. 0.99."""


def mean_ious(probability: Float32, truth: Mask) -> Float64:
    """Return the mean of foreground and background IoU of one image, for every threshold.

    Args:
        probability: float32 [height, width], foreground probability, 0 to 1.
        truth: bool [height, width].

    Returns:
        float64 [thresholds], 0 to 1; a side that is empty in both counts as 1.
    """
    # How many thresholds each pixel is above, compared in float32 as a prediction's mask is.
    below = np.searchsorted(THRESHOLDS.astype(np.float32), probability, side="left")
    found = [np.bincount(below[side], minlength=len(THRESHOLDS) + 1) for side in (truth, ~truth)]
    above = [np.cumsum(counts[::-1])[::-1][1:] for counts in found]
    hits, false_alarms = above
    positives, negatives = int(truth.sum()), int((~truth).sum())
    foreground = _ratio(hits, positives + false_alarms)
    background = _ratio(negatives - false_alarms, negatives + positives - hits)
    return (foreground + background) / 2


def _ratio(part: npt.NDArray[np.int_], whole: npt.NDArray[np.int_]) -> Float64:
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)


def best_threshold(probabilities: Iterable[Float32], truths: Iterable[Mask]) -> float:
    """Choose the threshold with the best `mean_ious`, averaged over the held-out images.

    Where several are equally good, the middle one is taken.
    """
    means = np.mean(
        [mean_ious(probability, truth) for probability, truth in zip(probabilities, truths, strict=True)],
        axis=0,
    )
    best = np.flatnonzero(means >= means.max() - 1e-12)
    return float(THRESHOLDS[best[len(best) // 2]])


def otsu_threshold(probabilities: Iterable[Float32]) -> float:
    """Choose the threshold that parts the values best (Otsu, 1979), without any mask.

    Only the number of pixels of each grey level is kept. The level is that of OpenCV, which wants all pixels at once.
    """
    counts = np.zeros(256, np.int64)
    for probability in probabilities:
        counts += np.bincount(to_grey(probability).ravel(), minlength=256)
    return float(np.clip(_otsu_level(counts) / 255, THRESHOLDS[0], THRESHOLDS[-1]))


def _otsu_level(counts: npt.NDArray[np.int64]) -> int:
    """Return the last level of the lower part that has the largest variance between both parts."""
    shares = (counts * (1 / counts.sum())).tolist()
    mean = sum(level * int(count) for level, count in enumerate(counts)) * (1 / int(counts.sum()))
    least = float(np.finfo(np.float32).eps)
    best, largest, lower, below = 0, 0.0, 0.0, 0.0
    for level, share in enumerate(shares):
        lower *= below
        below += share
        above = 1 - below
        if min(below, above) < least or max(below, above) > 1 - least:
            continue
        lower = (lower + level * share) / below
        upper = (mean - below * lower) / above
        between = below * above * (lower - upper) * (lower - upper)
        if between > largest:
            best, largest = level, between
    return best
