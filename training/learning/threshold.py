"""The mask threshold, from held-out images whose mask is known."""

from collections.abc import Sequence

import cv2
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


def best_threshold(probabilities: Sequence[Float32], truths: Sequence[Mask]) -> float:
    """Choose the threshold with the best `mean_ious`, averaged over the held-out images.

    Where several are equally good, the middle one is taken.
    """
    means = np.mean(
        [mean_ious(probability, truth) for probability, truth in zip(probabilities, truths, strict=True)],
        axis=0,
    )
    best = np.flatnonzero(means >= means.max() - 1e-12)
    return float(THRESHOLDS[best[len(best) // 2]])


def otsu_threshold(probabilities: Sequence[Float32]) -> float:
    """Choose the threshold that parts the values best (Otsu, 1979), without any mask."""
    values = np.concatenate([probability.ravel() for probability in probabilities])
    level, _ = cv2.threshold(to_grey(values), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return float(np.clip(level / 255, THRESHOLDS[0], THRESHOLDS[-1]))
