"""Masks as COCO's compressed run lengths, as `pycocotools.mask` reads and writes them."""

from itertools import pairwise
from typing import Any

import numpy as np

from alserve.arrays import Mask

_BITS = 5
_SIGN = 1 << (_BITS - 1)
_MORE = 1 << _BITS
_ZERO = 48
"""The character '0' stands for the value 0."""


def encode_rle(mask: Mask) -> dict[str, Any]:
    """Encode a mask.

    Pixels are counted down the columns, in runs that alternate between background and foreground, the first one
    background. From the fourth on a run is written as the difference to the one two before, 5 bits a character.

    Args:
        mask: bool [height, width].

    Returns:
        `size`: [height, width] in pixels; `counts`: the runs, as text.
    """
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = [0, *edges.tolist(), flat.size]
    runs = [0] * int(flat[0]) + [end - start for start, end in pairwise(starts)]
    before = [0, 0, 0, *runs[1:]]
    counts = "".join(_characters(run - base) for run, base in zip(runs, before, strict=False))
    return {"size": list(mask.shape), "counts": counts}


def _characters(value: int) -> str:
    """Write a whole number, least significant bits first."""
    text = ""
    while True:
        bits, value = value & (_MORE - 1), value >> _BITS
        if value == (-1 if bits & _SIGN else 0):
            return text + chr(bits + _ZERO)
        text += chr(bits + _MORE + _ZERO)
