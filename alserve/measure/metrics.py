"""Figures of merit, at the images' own size."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Self

import numpy as np

from alserve.arrays import Floats, Mask

BINS = 1500
"""Steps of 0 to 1 in a `BinnedScores`: a multiple of `CALIBRATION_BINS`, and finer than the 1000 of Choe et al."""

CALIBRATION_BINS = 15
"""Bins of the calibration error, as in Guo et al."""

RESAMPLES = 2000
"""Draws of the bootstrap."""

CONFIDENCE = 0.95
"""Share of the bootstrap's means that lie in the interval; and what intervals of shares are for."""

Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Standard deviations of the normal distribution on either side that hold that share: 1.96."""

BLOCK = 1 << 13
"""Numbers that the bootstrap draws at a time, so that memory does not grow."""


def dice(first: Mask, second: Mask) -> float:
    """Return 2 |A and B| / (|A| + |B|) of two bool [height, width] masks, 0 to 1; two empty masks agree: 1."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def iou(first: Mask, second: Mask) -> float:
    """Return |A and B| / |A or B| of two bool [height, width] masks, 0 to 1; two empty masks agree: 1."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def mean_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of a mean: how far another test set of that size might move it.

    The percentile interval of Efron (1979), over `RESAMPLES` draws.

    Args:
        values: One number per image.
        seed: Drives the draws; same seed, same interval.

    Returns:
        (low, high) of the mean; None for fewer than two values, which say nothing of their spread.
    """
    if len(values) < 2:  # noqa: PLR2004
        return None
    rng = np.random.default_rng(seed)
    draws = max(1, BLOCK // len(values))
    blocks = [min(draws, RESAMPLES - begun) for begun in range(0, RESAMPLES, draws)]
    means = np.concatenate([rng.choice(values, (count, len(values))).mean(axis=1) for count in blocks])
    low, high = np.quantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def share_interval(count: int, total: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share: how far another test set of that size might move it.

    The score interval of Wilson (J. Am. Stat. Assoc. 22, 1927): (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) /
    (1 + z^2 / n). Unlike the bootstrap's it has a width where all or none count.

    Args:
        count: How many count, 0 to `total`.
        total: Of how many.

    Returns:
        (low, high), 0 to 1; None of none.
    """
    if not total:
        return None
    share, square = count / total, Z**2 / total
    middle = share + square / 2
    spread = math.sqrt(square * (share * (1 - share) + square / 4))
    return max(0.0, (middle - spread) / (1 + square)), min(1.0, (middle + spread) / (1 + square))


def area_under_roc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """Return the area under the ROC curve: how often a positive has a higher score than a negative.

    The rank formula of Mann and Whitney (Ann. Math. Stat. 18, 1947), see Hanley and McNeil (Radiology 143, 1982):
    (R - n (n + 1) / 2) / (n m), where R is the sum of the ranks of the n positives among all n + m scores; equal
    scores have their mean rank, so a tie counts one half.

    Args:
        scores: One number per image.
        positive: Of each, whether it is a positive.

    Returns:
        0 to 1, 1/2 for scores that tell nothing; None where there are no positives or no negatives.
    """
    truth = np.asarray(positive, np.bool_)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return None
    _, places, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(ranks[places][truth].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


class BinnedScores:
    """Scores of 0 to 1 and whether each was right, counted in `BINS` equal bins: memory does not grow with them.

    Attributes:
        right: int64 [`BINS`], number of scores that were right.
        wrong: int64 [`BINS`], number of those that were not.
        total: float64 [`BINS`], sum of the scores.
    """

    def __init__(self) -> None:
        self.right, self.wrong = np.zeros((2, BINS), np.int64)
        self.total = np.zeros(BINS)

    @classmethod
    def of(cls, values: Floats, right: Mask) -> Self:
        """Count scores, 0 to 1, of any shape; `right` has the same."""
        binned = cls()
        places = np.minimum((values * BINS).astype(np.intp), BINS - 1)
        binned.right += np.bincount(places[right], minlength=BINS)
        binned.wrong += np.bincount(places[~right], minlength=BINS)
        binned.total += np.bincount(places.ravel(), values.ravel(), minlength=BINS)
        return binned

    def add(self, other: Self) -> None:
        """Add the counts of another."""
        self.right += other.right
        self.wrong += other.wrong
        self.total += other.total

    def average_precision(self) -> float | None:
        """Return PxAP, the pixel-wise average precision of Choe et al., CVPR 2020.

        PxAP = sum over l of precision(t_l) (recall(t_l) - recall(t_(l-1))), where t_l falls through the lower edges of
        the bins and the pixels of all images are counted together: precision(t) is the share of the pixels with a
        value of t or more that are foreground, recall(t) the share of the foreground that has such a value.

        Returns:
            0 to 1, exact for values rounded down to 1 / `BINS`; None where there is no foreground at all.
        """
        hits, alarms = np.cumsum(self.right[::-1]), np.cumsum(self.wrong[::-1])
        if not hits[-1]:
            return None
        precision = hits / np.maximum(hits + alarms, 1)
        return float((precision * self.right[::-1]).sum() / hits[-1])

    def calibration_error(self) -> float | None:
        """Return the expected calibration error of Guo et al., ICML 2017, over `CALIBRATION_BINS` bins.

        ECE = sum over bins b of n_b / n |share that is right in b - mean value in b|.

        Returns:
            0 to 1, 0 where values are the frequencies they claim to be; None where nothing was counted.
        """
        right, wrong, total = (
            part.reshape(CALIBRATION_BINS, -1).sum(axis=1) for part in (self.right, self.wrong, self.total)
        )
        count = right.sum() + wrong.sum()
        return float(np.abs(right - total).sum() / count) if count else None
