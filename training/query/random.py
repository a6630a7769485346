"""Random: each candidate as likely as the others."""

from collections.abc import Sequence

import numpy as np

from training.query import STRATEGIES, QueryContext, Strategy


def choose_at_random(
    _context: QueryContext, candidates: Sequence[int], _labelled: Sequence[int], wanted: int, rng: np.random.Generator
) -> list[int]:
    """See `training.query.Choose`."""
    return sorted(int(index) for index in rng.choice(np.asarray(candidates), wanted, replace=False))


STRATEGIES.add("random")(Strategy("at random within each class, as the proposed method of the paper", choose_at_random))
