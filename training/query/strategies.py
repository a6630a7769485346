"""Query strategies: which images of a class to ask the oracle for. One function each, one registry.

Where no network has learned masks yet, those that would ask it choose at random, as the paper does for its first masks.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from alserve.arrays import Floats

TYPICAL_NEIGHBOURS = 20
"""Neighbours whose mean distance says how typical an image is (Hacohen et al., ICML 2022)."""


class QueryContext(Protocol):
    """What a strategy may look at; images are named by their index in D. Each answer costs a run of the network."""

    has_model: bool
    """Whether a network has learned masks yet."""

    def features(self, images: Sequence[int]) -> Floats:
        """Return the encoder's last feature map of each image, averaged over its area: [images, channels]."""

    def probability(self, image: int) -> Floats:
        """Return the foreground probability, [height, width], 0 to 1."""

    def samples(self, image: int) -> Floats:
        """Return the foreground probability under several draws of dropout, [draws, height, width], 0 to 1."""

    def cam(self, image: int) -> Floats:
        """Return the CAM of the image's class at the mask's size, [height, width], scaled to 0..1 within the image."""


Strategy = Callable[[QueryContext, Sequence[int], Sequence[int], int, np.random.Generator], list[int]]
"""(view, candidates of one class, those of the class in L, how many, randomness) -> the chosen ones, sorted."""


def random_query(
    _view: QueryContext, candidates: Sequence[int], _labelled: Sequence[int], wanted: int, rng: np.random.Generator
) -> list[int]:
    """Choose at random, each candidate as likely as the others."""
    return sorted(int(index) for index in rng.choice(np.asarray(candidates), wanted, replace=False))


def highest(
    candidates: Sequence[int], scores: Sequence[float] | Floats, wanted: int, rng: np.random.Generator
) -> list[int]:
    """Choose those with the highest scores; equal ones at random, and one that is no number never before one that is.

    Args:
        candidates: Images.
        scores: One number each.
        wanted: How many.
        rng: Decides between equals.
    """
    values = np.asarray(scores, np.float64)
    values = np.where(np.isnan(values), -np.inf, values)
    shuffled = rng.permutation(len(candidates))
    order = shuffled[np.argsort(-values[shuffled], kind="stable")]
    return sorted(int(candidates[place]) for place in order[:wanted])


def _by_score(score: Callable[[QueryContext, int], float]) -> Strategy:
    """Make a strategy that asks for the images of the highest score, once there is a network to ask."""

    def query(
        view: QueryContext, candidates: Sequence[int], labelled: Sequence[int], wanted: int, rng: np.random.Generator
    ) -> list[int]:
        if not view.has_model:
            return random_query(view, candidates, labelled, wanted, rng)
        return highest(candidates, [score(view, index) for index in candidates], wanted, rng)

    return query


def entropy(probability: Floats) -> float:
    """Return the mean binary entropy of the pixels' probabilities, in nats: 0 to log 2."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())


def disagreement(cam: Floats, probability: Floats) -> float:
    """Return 1 minus the soft Dice of CAM and mask: 0 where they say the same, 1 where they share nothing."""
    total = float(cam.sum() + probability.sum())
    return 1 - 2 * float(np.minimum(cam, probability).sum()) / total if total else 0.0


def core_set(
    view: QueryContext, candidates: Sequence[int], labelled: Sequence[int], wanted: int, rng: np.random.Generator
) -> list[int]:
    """Choose by greedy k-centre (Sener & Savarese, ICLR 2018): each time the image farthest from all masks."""
    chosen: list[int] = []
    features, covered = view.features(candidates), list(labelled)
    nearest = np.full(len(candidates), np.inf)
    if covered:
        nearest = cdist(features, view.features(covered)).min(axis=1)
    while len(chosen) < wanted:
        left = [place for place, index in enumerate(candidates) if index not in chosen]
        (index,) = highest([candidates[place] for place in left], nearest[left], 1, rng)
        chosen.append(index)
        place = list(candidates).index(index)
        nearest = np.minimum(nearest, cdist(features, features[place : place + 1])[:, 0])
    return sorted(chosen)


def typical(
    view: QueryContext, candidates: Sequence[int], labelled: Sequence[int], wanted: int, rng: np.random.Generator
) -> list[int]:
    """Choose typical and diverse images (TypiClust, Hacohen et al., ICML 2022), for the first masks.

    The class is parted into as many clusters as there will be masks; of each of the largest that have no mask yet the
    image is taken whose neighbours in the cluster are nearest.
    """
    images = [*labelled, *candidates]
    features = view.features(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cluster, of images that are all alike, is none of those asked below
        _centres, cluster = kmeans2(features, len(labelled) + wanted, iter=50, minit="points", rng=rng)
    taken = set(cluster[: len(labelled)])
    sizes = {int(name): int((cluster == name).sum()) for name in np.unique(cluster)}
    order = sorted(sizes, key=lambda name: (name in taken, -sizes[name]))
    chosen: list[int] = []
    while len(chosen) < wanted:
        for name in order:
            members = [p for p in np.flatnonzero(cluster == name) if p >= len(labelled) and images[p] not in chosen]
            if members and len(chosen) < wanted:
                distances = np.sort(cdist(features[members], features[members]), axis=1)[:, 1 : TYPICAL_NEIGHBOURS + 1]
                spread = distances.mean(axis=1) if distances.shape[1] else np.zeros(len(members))
                chosen += highest([images[p] for p in members], -spread, 1, rng)
    return sorted(chosen)


STRATEGIES: dict[str, Strategy] = {
    "random": random_query,
    "entropy": _by_score(lambda view, image: entropy(view.probability(image))),
    "mc-dropout": _by_score(lambda view, image: float(view.samples(image).var(axis=0).mean())),
    "disagreement": _by_score(lambda view, image: disagreement(view.cam(image), view.probability(image))),
    "core-set": core_set,
    "typical": typical,
}
