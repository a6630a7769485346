"""Core-set (Sener & Savarese, ICLR 2018): the images that are farthest from all that have a mask."""

from collections.abc import Sequence

import numpy as np

from training.query import STRATEGIES, QueryContext, Strategy
from training.query.ranking import highest


def core_set(
    context: QueryContext, candidates: Sequence[int], labelled: Sequence[int], wanted: int, rng: np.random.Generator
) -> list[int]:
    """Choose by greedy k-centre; see `training.query.Choose`."""
    from scipy.spatial.distance import cdist  # noqa: PLC0415

    chosen: list[int] = []
    features, covered = context.features(candidates), list(labelled)
    nearest = np.full(len(candidates), np.inf)
    if covered:
        nearest = cdist(features, context.features(covered)).min(axis=1)
    while len(chosen) < wanted:
        left = [place for place, index in enumerate(candidates) if index not in chosen]
        (index,) = highest([candidates[place] for place in left], nearest[left], 1, rng)
        chosen.append(index)
        place = list(candidates).index(index)
        nearest = np.minimum(nearest, cdist(features, features[place : place + 1])[:, 0])
    return sorted(chosen)


STRATEGIES.add("core-set")(
    Strategy("the farthest in the encoder's features from all images with a mask (greedy k-centre)", core_set)
)
