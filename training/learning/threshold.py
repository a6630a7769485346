"""The mask threshold, from held-out images whose mask is known."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alserve.arrays import Float32, Float64, Mask
from alserve.images.codec import to_grey

THRESHOLDS = np.round(np.arange(0.05, 0.995, 0.01), 2)
"""The values tried: 0.05, 0.06 .. 0.99."""

FALSE_ALARM = 0.5
"""What foreground in an image that has none costs: as much as half of an image's mean IoU."""

LEAST_OBJECTS = 2
"""Fewest images with foreground by which a threshold is chosen."""

TOLERANCE = 1e-12
"""Rounding of the means."""


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


class Threshold(NamedTuple):
    """A mask threshold, and why it is this one."""

    value: float
    """A pixel is foreground where its probability is above this."""
    reason: str
    """For a person, in a few words."""


MORE_LIKELY_THAN_NOT = Threshold(0.5, "foreground where that is more likely than not")


def best_threshold(probabilities: Iterable[Float32], truths: Iterable[Mask]) -> Threshold:
    """Choose the threshold nearest to one half that is no worse than the best by more than chance.

    An image with foreground counts with its `mean_ious`, one without as 1 - `FALSE_ALARM` where any pixel is above the
    threshold and as 1 where none is: silence is not rewarded, for it earns nothing on the others. A threshold is no
    worse than the best where the mean difference over the images is within one standard error (Breiman et al.,
    Classification and Regression Trees, 1984, 3.4.3); so few masks leave it near one half.

    Args:
        probabilities: Foreground probability of held-out images: float32 [height, width], 0 to 1.
        truths: Their masks: bool [height, width].

    Returns:
        One of `THRESHOLDS`; one half where fewer than two of the images have foreground.
    """
    found = [
        (_scores(probability, truth), truth.any()) for probability, truth in zip(probabilities, truths, strict=True)
    ]
    scores, objects = np.stack([each for each, _ in found]), sum(bool(has_any) for _, has_any in found)
    counted = f"{objects} held-out images with foreground, {len(found) - objects} without"
    if objects < LEAST_OBJECTS:
        return Threshold(MORE_LIKELY_THAN_NOT.value, f"{counted}: too few to choose by")
    best = int(scores.mean(axis=0).argmax())
    lost = scores[:, [best]] - scores
    error = lost.std(axis=0, ddof=1) / np.sqrt(len(found))
    as_good = np.flatnonzero(lost.mean(axis=0) <= error + TOLERANCE)
    value = float(THRESHOLDS[as_good[np.abs(THRESHOLDS[as_good] - MORE_LIKELY_THAN_NOT.value).argmin()]])
    reason = f"{counted}: the best is {THRESHOLDS[best]:.2f}, and {value:.2f} is as good within a standard error"
    return Threshold(value, reason)


def _scores(probability: Float32, truth: Mask) -> Float64:
    """Return what an image counts for every threshold: float64 [thresholds], 0 to 1."""
    if truth.any():
        return mean_ious(probability, truth)
    return np.where(probability.max() > THRESHOLDS.astype(np.float32), 1 - FALSE_ALARM, 1.0)


def otsu_threshold(probabilities: Iterable[Float32]) -> Threshold:
    """Choose the threshold that parts the values best (Otsu, 1979), without any mask.

    Only the number of pixels of each grey level is kept. The level is that of OpenCV, which wants all pixels at once.
    """
    counts = np.zeros(256, np.int64)
    for probability in probabilities:
        counts += np.bincount(to_grey(probability).ravel(), minlength=256)
    value = float(np.clip(_otsu_level(counts) / 255, THRESHOLDS[0], THRESHOLDS[-1]))
    return Threshold(value, "parts the values of all training images best (Otsu)")


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
