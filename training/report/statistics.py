"""Statistics over seeds: mean and spread, area under a curve, paired tests. Missing values are never filled in."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_rel, wilcoxon


@dataclass(frozen=True)
class Spread:
    """A measure over seeds."""

    mean: float
    std: float | None
    """Standard deviation of the sample (n - 1 in the denominator); None for one seed."""
    n: int


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """Return mean and standard deviation of what was measured; None where nothing was."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return Spread(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None, len(known))


def area_under(points: Sequence[tuple[float, float]], start: float, stop: float) -> float | None:
    """Return the area under a curve by the trapezoid rule, over the width of the range.

    1 / (stop - start) * the sum of (m[i+1] - m[i]) (d[i] + d[i+1]) / 2. With budgets evenly spaced that is the paper's
    area, normalised by the number of intervals. The area under a constant curve is its constant.

    Args:
        points: (masks used, value), in order of the masks.
        start: Number of masks at which the range begins; between two points the curve is a straight line.
        stop: Number of masks at which it ends.

    Returns:
        The area in the values' unit; None where the curve does not reach over the range, or the range is empty.
    """
    if not points or start >= stop or points[0][0] > start or points[-1][0] < stop:
        return None
    masks, values = np.array(points, np.float64).T
    places = np.array([start, *(place for place in masks if start < place < stop), stop])
    return float(np.trapezoid(np.interp(places, masks, values), places) / (stop - start))


@dataclass(frozen=True)
class Paired:
    """The difference between two methods on the same seeds."""

    n: int
    """Seeds that both have."""
    difference: float
    """Mean of the differences."""
    t_test: float | None
    """p of the two-sided paired t-test; None with one seed, or where all differ by the same."""
    wilcoxon: float | None
    """p of the two-sided Wilcoxon signed-rank test, at least 2 / 2**n; None with one seed, or without a difference."""


def compare_paired(ours: Mapping[int, float | None], theirs: Mapping[int, float | None]) -> Paired | None:
    """Compare two measures by seed.

    Args:
        ours: Value by seed.
        theirs: The other method's.

    Returns:
        The comparison on the seeds that both have measured; None where there is none.
    """
    pairs = np.array([(ours[seed], theirs[seed]) for seed in sorted({*ours} & {*theirs})], np.float64).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if not len(pairs):
        return None
    first, second = pairs.T
    differences = first - second
    varied = not np.allclose(differences, differences[0], rtol=1e-9, atol=1e-12)
    t_test = float(ttest_rel(first, second).pvalue) if varied else None
    signed_rank = float(wilcoxon(differences).pvalue) if len(pairs) > 1 and differences.any() else None
    return Paired(len(pairs), float(differences.mean()), t_test, signed_rank)


def masks_to_reach(points: Sequence[tuple[int, float]], goal: float) -> int | None:
    """Return the first budget whose value is at least a goal; None where no budget's is."""
    return next((masks for masks, value in points if value >= goal), None)
