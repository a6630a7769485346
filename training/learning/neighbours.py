"""Step 2e of Algorithm 1: which images have a labelled one among their nearest neighbours of the same class.

In a class of up to `EXACT` images all are compared with each other. In a larger one the k-th nearest neighbour is
estimated from a random sample of the class, so that time and memory grow with the number of images, not its square.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Protocol

import numpy as np
import numpy.typing as npt

from alserve.arrays import Float32, Mask
from alserve.parallel import ordered_map
from alserve.runtime.device import available_cores
from training.learning.similarity import EPSILON, Counts, distances, histograms
from training.seeds import derive_seed

EXACT = 2000
"""Largest class whose images are all compared with each other."""

SAMPLE = 1000
"""Images of a larger class that all its images are compared with.

A rank of a quarter of the class is then known to 1.4 % of the class (one standard error)."""

BLOCK = 64
"""Images that one thread compares at a time."""

Indices = npt.NDArray[np.integer]


class Neighbours(Protocol):
    """The neighbours of every image of one class."""

    @property
    def members(self) -> Indices:
        """The images of the class."""
        ...

    def near(self, labelled: Mask) -> Mask:
        """Tell of each member whether one of its nearest neighbours is labelled.

        Args:
            labelled: bool [images], of all classes.

        Returns:
            bool [members].
        """
        ...


@dataclass(frozen=True)
class NearestNeighbours:
    """The k nearest neighbours of every image of a class."""

    members: Indices
    nearest: Indices
    """[members, k], the nearest first and equally near ones in their order."""

    @classmethod
    def of(cls, members: Indices, counts: Counts, count: int) -> "NearestNeighbours":
        """Compare all members with each other.

        Args:
            members: The images of the class.
            counts: Their colours, uint32 [members, 3, 256], see `training.learning.similarity.describe`.
            count: Number of neighbours.
        """
        between = distances(counts)
        np.fill_diagonal(between, np.inf)
        return cls(members, members[np.argsort(between, axis=1, kind="stable")[:, :count]])

    def near(self, labelled: Mask) -> Mask:
        """See `Neighbours.near`."""
        return np.asarray(labelled[self.nearest].any(axis=1))


class EstimatedNeighbours:
    """How far the k-th nearest neighbour of every image of a large class is, estimated from a sample of the class.

    The share of the sample that is nearer stands for the share of the class, and the sample's sums of divergences, by
    which the channels are scaled, for those of the class. A k below the class over `SAMPLE` counts as that.

    Args:
        members: The images of the class.
        counts: Their colours, uint32 [members, 3, 256], see `training.learning.similarity.describe`.
        count: k, a number of images.
        seed: Draws the sample.
    """

    def __init__(self, members: Indices, counts: Counts, count: int, seed: int) -> None:
        self.members = members
        self._colours = np.empty((counts.shape[1], len(members), counts.shape[2]), np.float32)
        for start in range(0, len(members), BLOCK):
            self._colours[:, start : start + BLOCK] = histograms(counts[start : start + BLOCK]).swapaxes(0, 1)
        sample = np.sort(np.random.default_rng(seed).choice(len(members), SAMPLE, replace=False))
        sums = self._compare(sample, sample, lambda found, _places: found.sum(axis=2).T)
        self._scales = (1 / np.maximum(sums.sum(axis=0), EPSILON)).astype(np.float32)
        rank = min(SAMPLE - 1, ceil(count * (SAMPLE - 1) / (len(members) - 1)))

        def kth(found: Float32, places: Indices) -> Float32:
            between = self._scaled(found)
            between[places[:, None] == sample] = np.inf  # an image is no neighbour of itself
            return np.asarray(np.partition(between, rank - 1)[:, rank - 1])

        self._reach = self._compare(np.arange(len(members)), sample, kth)
        self._nearest = np.full(len(members), np.inf, np.float32)
        self._compared = np.zeros(len(members), np.bool_)

    def near(self, labelled: Mask) -> Mask:
        """See `Neighbours.near`; each labelled image is compared with the class once, when it is new."""
        new = np.flatnonzero(labelled[self.members] & ~self._compared)
        if len(new):

            def closest(found: Float32, _places: Indices) -> Float32:
                return np.asarray(self._scaled(found).min(axis=1))

            self._nearest = np.minimum(self._nearest, self._compare(np.arange(len(self.members)), new, closest))
            self._compared[new] = True
        return np.asarray(self._nearest <= self._reach)

    def _scaled(self, found: Float32) -> Float32:
        """Add the channels, [3, images, others], each by its scale: [images, others]."""
        return np.asarray(np.tensordot(self._scales, found, 1))

    def _compare(self, places: Indices, others: Indices, reduce: Callable[[Float32, Indices], Float32]) -> Float32:
        """Compare members with others, a block at a time.

        Args:
            places: Places of the members.
            others: Places of the others.
            reduce: Returns what is kept of a block, [block, ...], by its divergences, float32 [3, block, others], and
                its places.
        """
        there = self._colours[:, others]

        def block(start: int) -> Float32:
            chosen = places[start : start + BLOCK]
            return reduce(divergences(self._colours[:, chosen], there), chosen)

        return np.concatenate(list(ordered_map(block, range(0, len(places), BLOCK), available_cores())))


def divergences(ours: Float32, theirs: Float32) -> Float32:
    """Return the Jensen-Shannon divergence (natural logarithm) of every pair: log 2 + (H(p + q) - H(p) - H(q)) / 2.

    H(x) is the sum of -x log x. `training.learning.similarity.distances` has more digits.

    Args:
        ours: Distributions, float32 [channels, images, bins], all positive.
        theirs: Others, [channels, others, bins].

    Returns:
        [channels, images, others].
    """
    if theirs.shape[1] < ours.shape[1]:  # the larger side is computed at once
        return divergences(theirs, ours).swapaxes(1, 2)
    found = np.empty((*ours.shape[:2], theirs.shape[1]), np.float32)
    both, logs = np.empty_like(theirs[0]), np.empty_like(theirs[0])
    for channel, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        own, their = (np.einsum("ij,ij->i", values, np.log(values)) for values in (mine, other))
        for row, values in enumerate(mine):
            np.log(np.add(other, values, out=both), out=logs)
            found[channel, row] = own[row] + their - np.einsum("ij,ij->i", both, logs)
    return np.maximum(found / 2 + np.float32(log(2)), 0)


def neighbours(
    counts: Counts, labels: Sequence[int], k: float, seed: int, wanted: Collection[int] | None = None
) -> list[Neighbours]:
    """Find every image's k nearest neighbours of its own class, without itself.

    Args:
        counts: uint32 [images, 3, 256], see `training.learning.similarity.describe`.
        labels: Class of every image.
        k: Number of neighbours; below 1, a fraction of the class (at least one). In a class of fewer images it is all
            the others.
        seed: Draws the samples of classes larger than `EXACT`.
        wanted: The classes to look at. Default: all.

    Returns:
        The neighbours within each class.
    """
    found: list[Neighbours] = []
    classes = np.asarray(labels)
    for label in np.unique(classes) if wanted is None else sorted(wanted):
        members = np.flatnonzero(classes == label).astype(np.int32)
        count = min(max(1, round(k * len(members))) if k < 1 else int(k), len(members) - 1)
        if len(members) <= EXACT:
            found.append(NearestNeighbours.of(members, counts[members], count))
        else:
            found.append(EstimatedNeighbours(members, counts[members], count, derive_seed(seed, int(label))))
    return found


def within_reach(unlabelled: Collection[int], labelled: Collection[int], nearest: Sequence[Neighbours]) -> list[int]:
    """Select U'': every unlabelled image that has a labelled one among its nearest neighbours."""
    known = np.zeros(1 + max((int(group.members.max()) for group in nearest), default=0), np.bool_)
    known[list(labelled)] = True
    found = [group.members[group.near(known)].tolist() for group in nearest]
    return sorted({index for members in found for index in members} & set(unlabelled))
