"""How sure the network is of a mask."""

import math

import numpy as np

from alserve.arrays import Floats

_AT_ONCE = 2**20
"""Pixels that are looked at at once."""


def entropy(probability: Floats) -> float:
    """Return the mean binary entropy of the pixels' probabilities, in nats: 0 to log 2."""
    flat = probability.ravel()
    return -sum(_negentropy(flat[first : first + _AT_ONCE]) for first in range(0, flat.size, _AT_ONCE)) / flat.size


def _negentropy(probability: Floats) -> float:
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return float((p * np.log(p) + (1 - p) * np.log(1 - p)).sum())


def certainty(probability: Floats) -> float:
    """Return 1 less the mean binary entropy in bits: 1 where all pixels are certain, 0 where all are at one half."""
    return 1 - entropy(probability) / math.log(2)
