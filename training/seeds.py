"""One seed for a run, and from it one for every place in it."""

import numpy as np


def derive_seed(*parts: int) -> int:
    """Return a seed of its own for every place in a run, such as (seed, round, pass): 0 to 2**32 - 1."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
