"""COCO's regions: polygons, and run lengths down the columns, as numbers or as text (see `alserve.web.rle`).

Text is decoded here, not by pycocotools, whose C code ends the process over damaged text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

Mask = npt.NDArray[np.bool_]

POLYGON_NUMBERS = 6
"""A polygon has three corners at least, of two numbers each."""

_FIRST, _BITS, _SIGN, _MORE = ord("0"), 5, 16, 32


def decode_region(region: Any, shape: tuple[int, int]) -> Mask:  # noqa: ANN401  whatever the JSON holds
    """Decode what stands under `segmentation`.

    Args:
        region: A list of polygons, each x, y, x, y .. in pixels; or a dict of `size`, [height, width], and `counts`.
        shape: (height, width) of the image in pixels.

    Returns:
        bool [height, width].

    Raises:
        ValueError: It does not fit the shape, or is damaged.
        KeyError, TypeError: It is something else.
    """
    if isinstance(region, list):
        return _fill(region, shape)
    if tuple(region["size"]) != shape:
        raise ValueError(f"run lengths are of size {region['size']}, not {list(shape)}")
    counts = region["counts"]
    runs = np.asarray(_numbers(counts) if isinstance(counts, str) else counts, np.int64)
    pixels = shape[0] * shape[1]
    if runs.ndim != 1 or (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:
        raise ValueError(f"run lengths do not add up to {shape[0]} x {shape[1]} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape, order="F")


def _fill(polygons: Sequence[Sequence[float]], shape: tuple[int, int]) -> Mask:
    for polygon in polygons:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or corners.size < POLYGON_NUMBERS or corners.size % 2:
            raise ValueError("a polygon has fewer than three corners")
        if not ((corners >= -1) & (corners <= np.tile(shape[::-1], corners.size // 2) + 1)).all():
            raise ValueError("a polygon reaches out of the image")
    if not polygons:
        raise ValueError("a region without polygons")
    runs = coco.merge(coco.frPyObjects(polygons, *shape))
    return np.asarray(coco.decode(runs), np.bool_)


def _numbers(text: str) -> list[int]:
    """Undo the compression: 5 bits a character, least significant first; each number the difference to two before."""
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - _FIRST
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
