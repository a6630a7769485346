"""Query strategies: which images of a class to ask the oracle for. One function each, one registry."""

from collections.abc import Callable, Sequence

import numpy as np

Strategy = Callable[[Sequence[int], int, np.random.Generator], list[int]]
"""(candidates of one class, how many, randomness) -> the chosen ones, sorted."""


def random_query(candidates: Sequence[int], wanted: int, rng: np.random.Generator) -> list[int]:
    """Choose at random, each candidate as likely as the others."""
    return sorted(int(index) for index in rng.choice(np.asarray(candidates), wanted, replace=False))


STRATEGIES: dict[str, Strategy] = {"random": random_query}
