"""COCO's regions: polygons, and run lengths down the columns, as numbers or as text (see `alserve.outputs.rle`).

Text is decoded here, not by pycocotools, whose C code ends the process over damaged text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from alserve.arrays import Float64, Mask

POLYGON_NUMBERS = 6
"""A polygon has three corners at least, of two numbers each."""

MOST_OUTLINE = 4_000_000
"""Polygons of an image are drawn from so many pixels of outline at most: memory and time go with their length."""

_FIRST, _BITS, _SIGN, _MORE = ord("0"), 5, 16, 32


def decode_regions(regions: Sequence[Any], shape: tuple[int, int]) -> Mask:
    """Decode what stands under `segmentation` of all of an image's regions, and join them.

    However many there are, memory is that of a few masks.

    Args:
        regions: Each a list of polygons, x, y, x, y .. in pixels; or a dict of `size`, [height, width], and `counts`.
        shape: (height, width) of the image in pixels.

    Returns:
        bool [height, width].

    Raises:
        ValueError, OverflowError: One does not fit the shape, or is damaged.
        KeyError, TypeError: One is something else.
    """
    pixels = shape[0] * shape[1]
    changes = np.zeros(pixels + 1, np.int32)  # +1 where a region begins, -1 where it ends, down the columns
    outline = 0.0
    for region in regions:
        if isinstance(region, list):
            polygons = [_corners(polygon, shape) for polygon in region]
            if not polygons:
                raise ValueError("a region without polygons")
            outline += sum(map(_length, polygons))
            if outline > MOST_OUTLINE:
                raise ValueError(f"its polygons are longer than {MOST_OUTLINE:,} pixels; export run lengths")
            drawn = coco.merge(coco.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *shape))
            runs = np.asarray(_numbers(drawn["counts"].decode()), np.int64)
        else:
            runs = _runs(region, shape)
        edges = np.cumsum(runs)
        starts, ends = edges[::2], edges[1::2]
        np.add.at(changes, starts[: len(ends)], 1)  # a last run of background ends nowhere
        np.add.at(changes, ends, -1)
    covered = np.cumsum(changes[:-1]) > 0
    return covered.reshape(shape, order="F")


def _runs(region: Any, shape: tuple[int, int]) -> npt.NDArray[np.int64]:  # noqa: ANN401  whatever the JSON holds
    """Read run lengths: background, foreground, background and so on."""
    if list(region["size"]) != list(shape):
        raise ValueError(f"run lengths are of size {region['size']}, not {list(shape)}")
    counts = region["counts"]
    runs = np.asarray(_numbers(counts) if isinstance(counts, str) else counts)
    if runs.dtype.kind not in "iu":
        raise ValueError("run lengths are no whole numbers")
    pixels = shape[0] * shape[1]
    if runs.ndim != 1 or (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:
        raise ValueError(f"run lengths do not add up to {shape[0]} x {shape[1]} pixels")
    return runs.astype(np.int64)


def _corners(polygon: Any, shape: tuple[int, int]) -> Float64:  # noqa: ANN401
    """Read a polygon: [corners, 2], of x and y."""
    corners = np.asarray(polygon, np.float64)
    if corners.ndim != 1 or corners.size < POLYGON_NUMBERS or corners.size % 2:
        raise ValueError("a polygon has fewer than three corners")
    if not ((corners >= -1) & (corners <= np.tile(shape[::-1], corners.size // 2) + 1)).all():
        raise ValueError("a polygon reaches out of the image")
    return corners.reshape(-1, 2)


def _length(corners: Float64) -> float:
    """Return how many pixels the outline of a polygon has."""
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())


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
