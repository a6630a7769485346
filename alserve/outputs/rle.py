"""Masks as COCO's run lengths, as `pycocotools.mask` reads and writes them.

Pixels are counted down the columns, in runs that alternate between background and foreground, the first one background.
As text, a run from the fourth on is written as the difference to the one two before, 5 bits a character.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from alserve.arrays import Mask

_BITS = 5
_SIGN = 1 << (_BITS - 1)
_MORE = 1 << _BITS
_ZERO = 48
"""The character '0' stands for the value 0."""


def encode_rle(mask: Mask, shape: tuple[int, ...] | None = None, *, left: int = 0, top: int = 0) -> dict[str, Any]:
    """Encode a mask.

    Args:
        mask: bool [height, width].
        shape: (height, width) of the image in pixels, where the mask is of a part of it. Default: its own.
        left: Where in the image the mask begins, in pixels.
        top: The same, downwards.

    Returns:
        `size`: [height, width] of the image in pixels; `counts`: the runs, as text.
    """
    height, width = shape or mask.shape
    columns = np.zeros((height, mask.shape[1]), np.bool_)
    columns[top : top + mask.shape[0]] = mask
    runs = runs_of(columns.ravel(order="F"))
    runs[0] += left * height  # of background, as what lies to the right
    if right := (width - left - mask.shape[1]) * height:
        if len(runs) % 2:
            runs[-1] += right
        else:
            runs.append(right)
    before = [0, 0, 0, *runs[1:]]
    counts = "".join(_characters(run - base) for run, base in zip(runs, before, strict=False))
    return {"size": [height, width], "counts": counts}


def runs_of(flat: Mask) -> list[int]:
    """Return the runs of a row of pixels, bool [pixels], the first one background."""
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = [0, *edges.tolist(), flat.size]
    return [0] * int(flat[0]) + [end - start for start, end in pairwise(starts)]


def _characters(value: int) -> str:
    """Write a whole number, least significant bits first."""
    text = ""
    while True:
        bits, value = value & (_MORE - 1), value >> _BITS
        if value == (-1 if bits & _SIGN else 0):
            return text + chr(bits + _ZERO)
        text += chr(bits + _MORE + _ZERO)


def decode_rle(rle: Mapping[str, Any]) -> Mask:
    """Decode a mask that `encode_rle` or another program wrote.

    Args:
        rle: `size`: [height, width] in pixels; `counts`: the runs, as text or as whole numbers.

    Returns:
        bool [height, width].

    Raises:
        ValueError: It is damaged.
    """
    height, width = rle["size"]
    runs = run_lengths(rle, (height, width))
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape((height, width), order="F")


def run_lengths(rle: Mapping[str, Any], shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the runs of a mask, in pixels.

    Args:
        rle: See `decode_rle`.
        shape: (height, width) that the mask must have, in pixels.

    Raises:
        ValueError: It is damaged, or of another shape.
    """
    if list(rle["size"]) != list(shape):
        raise ValueError(f"run lengths are of size {rle['size']}, not {list(shape)}")
    counts = rle["counts"]
    runs = np.asarray(_numbers_of(counts) if isinstance(counts, str) else counts)
    if runs.dtype.kind not in "iu":
        raise ValueError("run lengths are no whole numbers")
    pixels = shape[0] * shape[1]
    if runs.ndim != 1 or (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:
        raise ValueError(f"run lengths do not add up to {shape[0]} x {shape[1]} pixels")
    return runs.astype(np.int64)


def _numbers_of(text: str) -> list[int]:
    """Read whole numbers from text."""
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - _ZERO
        if not 0 <= bits < 2 * _MORE:
            raise ValueError(f"'{character}' in run lengths")
        value |= (bits & (_MORE - 1)) << shift
        shift += _BITS
        if not bits & _MORE:
            value -= (1 << shift) if bits & _SIGN else 0
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))  # noqa: PLR2004  from the fourth on
            value = shift = 0
    if shift:
        raise ValueError("run lengths end too early")
    return numbers
