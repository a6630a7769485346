"""Typical (TypiClust, Hacohen et al., ICML 2022): typical and diverse images, for the first masks."""

import warnings
from collections.abc import Sequence

import numpy as np

from alserve.arrays import Floats
from training.query import STRATEGIES, QueryContext, Strategy
from training.query.ranking import highest

NEIGHBOURS = 20
"""Nearest neighbours whose mean distance says how typical an image is, as published."""

BLOCK = 512
"""Images whose distances from all others of their cluster are in memory at once."""


def _spread(distances: Floats) -> Floats:
    """Return the mean distance from the nearest neighbours; of each image the first is its own, of 0."""
    nearest = np.sort(np.partition(distances, min(NEIGHBOURS, distances.shape[1] - 1), axis=1)[:, : NEIGHBOURS + 1])
    return np.asarray(nearest[:, 1:].mean(axis=1) if nearest.shape[1] > 1 else np.zeros(len(nearest)))


def typical(
    context: QueryContext, candidates: Sequence[int], labelled: Sequence[int], wanted: int, rng: np.random.Generator
) -> list[int]:
    """Choose the image with the nearest neighbours, of each of the largest clusters without a mask.

    There are as many clusters as there will be masks. See `training.query.Choose`.
    """
    from scipy.cluster.vq import kmeans2  # noqa: PLC0415
    from scipy.spatial.distance import cdist  # noqa: PLC0415

    images = [*labelled, *candidates]
    features = context.features(images)
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
                own = features[members]
                blocks = np.array_split(own, -(-len(own) // BLOCK))  # all at once, memory would grow with the square
                spread = np.concatenate([_spread(cdist(block, own)) for block in blocks])
                chosen += highest([images[p] for p in members], -spread, 1, rng)
    return sorted(chosen)


STRATEGIES.add("typical")(
    Strategy("typical and diverse in the encoder's features (TypiClust), for the first masks", typical)
)
