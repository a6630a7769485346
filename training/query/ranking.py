"""Choices by score: each image has a number of its own, and the highest are chosen."""

from collections.abc import Callable, Sequence

import numpy as np

from alserve.arrays import Floats
from training.query import Choose, QueryContext
from training.query.random import choose_at_random


def highest(
    candidates: Sequence[int], scores: Sequence[float] | Floats, wanted: int, rng: np.random.Generator
) -> list[int]:
    """Return the images of the highest scores, sorted; equal ones are chosen at random, and NaN comes last.

    Args:
        candidates: Images.
        scores: One number each.
        wanted: Number of images to choose.
        rng: Decides between equals.
    """
    values = np.asarray(scores, np.float64)
    values = np.where(np.isnan(values), -np.inf, values)
    shuffled = rng.permutation(len(candidates))
    order = shuffled[np.argsort(-values[shuffled], kind="stable")]
    return sorted(int(candidates[place]) for place in order[:wanted])


def by_score(score: Callable[[QueryContext, int], float]) -> Choose:
    """Return a choice of the images of the highest score.

    Before a network has learned masks the choice is random, as the paper's is for its first masks.

    Args:
        score: Returns an image's score.
    """

    def choose(
        context: QueryContext, candidates: Sequence[int], labelled: Sequence[int], wanted: int, rng: np.random.Generator
    ) -> list[int]:
        if not context.has_model:
            return choose_at_random(context, candidates, labelled, wanted, rng)
        return highest(candidates, [score(context, index) for index in candidates], wanted, rng)

    return choose
