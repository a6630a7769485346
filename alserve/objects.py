"""Objects of a mask: its connected parts, or parts of these, with their outlines and what is measured of them.

Pixels that touch at a corner belong to one object, so that a thin crack that runs askew is not many. Coordinates are
pixels from the image's top left corner: the first pixel reaches from 0 to 1. Outlines run along the edges of the
pixels; where two edges meet inwards the corner is cut by half a pixel, so that an outline never touches itself. Where
objects were parted, their outlines may overlap by this much.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, pairwise
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from alserve.arrays import Float32, Float64, Mask, UInt8
from alserve.borders import Points, trace
from alserve.touching import Numbers, part

Ring = Float64
"""A closed line: [points, 2], x and y in pixels; the last point is joined to the first."""

_PARENT = 3
"""Where the hierarchy of OpenCV tells the parent of a border, which that of a hole has."""

_BLOCK = 2**16
"""Pixels of borders that are followed at once, or those of one object: what is needed in between is small."""

_AT_ONCE = 1024
"""Objects that are written at once."""


_Whole = TypeVar("_Whole", Points, list[Points])


class Outline(NamedTuple):
    """The outline of an object."""

    outer: Ring
    """Its outer edge."""
    holes: tuple[Ring, ...]
    """The edges of its holes."""


@dataclass(frozen=True, eq=False, slots=True)
class MaskObject:
    """A connected part of a mask, or one of the objects that it was parted in."""

    number: int
    """From 1, in reading order of the objects' first pixels."""
    box: tuple[int, int, int, int]
    """Left, top, width and height, in pixels."""
    touches_border: bool
    """Whether it reaches the border of the image: a part of it may lie outside."""
    area: int
    """Number of its pixels."""
    centroid: tuple[float, float]
    """Mean x and y of its pixels' middles."""
    perimeter: float
    """Length of its edges, those of holes included, in pixels: of the chain code through the pixels' middles.

    Steps to the side count 1 and askew the square root of 2 (Freeman, Computer processing of line-drawing images,
    1974); along the edges of pixels a line that runs askew would be too long by up to 41 %.
    """
    rings: Sequence[Points]
    """Its outline in half pixels, the outer edge first: int32 [points, 2]."""
    runs: npt.NDArray[np.int32]
    """Its pixels in reading order: row, first column, and the column behind the last, of each run: [runs, 3]."""

    @property
    def mask(self) -> Mask:
        """Its pixels in its box: bool [height, width]."""
        left, top, width, height = self.box
        changes = np.zeros((height, width + 1), np.int8)
        rows, begins, ends = (self.runs - (top, left, left)).T
        changes[rows, begins] = 1
        changes[rows, ends] = -1
        return changes[:, :width].cumsum(axis=1, dtype=np.int8).view(np.bool_)

    @property
    def equivalent_diameter(self) -> float:
        """Diameter of the disc of the same area, in pixels."""
        return math.sqrt(4 * self.area / math.pi)

    @property
    def outline(self) -> Outline:
        """Its outline, see the module."""
        outer, *holes = (ring / 2 for ring in self.rings)
        return Outline(outer, tuple(holes))

    @property
    def solidity(self) -> float:
        """Its area over that of its convex hull, 0 to 1; holes and bays make it less."""
        return 4 * self.area / float(cv2.contourArea(cv2.convexHull(self.rings[0])))


def count_objects(mask: Mask) -> int:
    """Return the number of connected parts of a mask, bool [height, width]."""
    count, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return count - 1  # the background is one


def find_objects(mask: Mask, split_touching: float = 0.0) -> Iterator[MaskObject]:
    """Find the objects of a mask.

    Args:
        mask: bool [height, width].
        split_touching: See `alserve.PostProcessing`.

    Yields:
        The objects, in reading order of their first pixels; together they are the mask.
    """
    number = 1
    for block in _blocks(_parted(part(mask, split_touching)) if split_touching else _connected(mask)):
        yield from _measured(block, number, mask.shape)
        number += len(block)


def some_at_once(objects: Sequence[MaskObject]) -> Iterator[Sequence[MaskObject]]:
    """Yield the objects in parts for which arrays of all their points or runs are small."""
    for start in range(0, len(objects), _AT_ONCE):
        yield objects[start : start + _AT_ONCE]


def means_and_maxima(objects: Sequence[MaskObject], values: Float32) -> Iterator[tuple[float, float]]:
    """Yield the mean and the maximum of the values of each object's pixels.

    Args:
        objects: Of one mask, in its order.
        values: A map of the whole image: float32 [height, width].
    """
    for some in some_at_once(objects):
        runs = np.concatenate([item.runs for item in some]).astype(np.int64)
        owners = np.repeat(np.arange(len(some)), [len(item.runs) for item in some])
        bounds = runs[:, :1] * values.shape[1] + runs[:, 1:]
        order = np.argsort(bounds[:, 0])
        owners, places = owners[order], bounds[order].ravel()
        flat = values.ravel()[: places[-1]]  # every second sum is of what lies between two runs
        sums = np.add.reduceat(flat, places[:-1])[::2]
        maxima = np.full(len(some), -np.inf, np.float32)
        np.maximum.at(maxima, owners, np.maximum.reduceat(flat, places[:-1])[::2])
        means = np.bincount(owners, sums) / [item.area for item in some]
        yield from zip(means.tolist(), maxima.tolist(), strict=True)


_Borders = Sequence[Points]
"""The borders of an object, its outer one first."""


def _borders(pixels: UInt8, left: int = 0, top: int = 0) -> list[_Borders]:
    """Return the borders of each connected part of some pixels, which begin in the image where it is said."""
    edges, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    borders = [np.asarray(edge[:, 0], np.int32) for edge in edges]
    parents = hierarchy[0, :, _PARENT].tolist() if borders else []
    found = {place: [border] for place, (border, parent) in enumerate(zip(borders, parents, strict=True)) if parent < 0}
    for border, parent in zip(borders, parents, strict=True):
        if parent >= 0:
            found[parent].append(border)
    return list(found.values())


def _connected(mask: Mask) -> Iterator[_Borders]:
    """Yield the borders of each connected part of a mask, in reading order of their first pixels."""
    found = _borders(mask.astype(np.uint8))
    found.sort(key=lambda borders: borders[0][0, ::-1].tolist(), reverse=True)  # an outer one begins at that pixel
    while found:
        yield found.pop()  # what is measured takes its memory


def _parted(numbers: Numbers) -> Iterator[_Borders]:
    """Yield the borders of each object of a mask that was parted, in reading order of their first pixels."""
    begins = numbers > 0
    ends = begins.copy()
    changes = numbers[:, 1:] != numbers[:, :-1]
    begins[:, 1:] &= changes
    ends[:, :-1] &= changes
    rows, lefts = np.nonzero(begins)
    rights = np.nonzero(ends)[1]
    number, first, run = np.unique(numbers[rows, lefts], return_index=True, return_inverse=True)
    left, right, bottom = lefts[first], rights[first], rows[first]
    np.minimum.at(left, run, lefts)
    np.maximum.at(right, run, rights)
    np.maximum.at(bottom, run, rows)
    boxes = np.stack([number, left, rows[first], right + 1, bottom + 1], axis=1)
    for own, x, y, end_x, end_y in boxes[np.argsort(first)].tolist():
        yield from _borders((numbers[y:end_y, x:end_x] == own).astype(np.uint8), x, y)


def _blocks(found: Iterator[_Borders]) -> Iterator[Sequence[_Borders]]:
    """Take several objects together, up to `_BLOCK` pixels of borders, or one that has more."""
    block: list[_Borders] = []
    pixels = 0
    for borders in found:
        block.append(borders)
        pixels += sum(map(len, borders))
        if pixels >= _BLOCK:
            yield block
            block, pixels = [], 0
    if block:
        yield block


def _measured(block: Sequence[_Borders], number: int, shape: tuple[int, int]) -> Iterator[MaskObject]:
    """Measure some objects, of which the first has this number."""
    counts = np.array([len(borders) for borders in block])
    owners, first_borders = np.repeat(np.arange(len(block)), counts), counts.cumsum() - counts
    is_outer = np.zeros(len(owners), np.bool_)
    is_outer[first_borders] = True
    traced = trace(list(chain.from_iterable(block)), owners, is_outer, shape)
    row, begin, end = traced.runs.T
    sizes, first_runs = end - begin, np.append(0, traced.run_ends[:-1])
    left, right = np.minimum.reduceat(begin, first_runs), np.maximum.reduceat(end, first_runs)
    top, bottom = row[first_runs], row[traced.run_ends - 1] + 1
    area = np.add.reduceat(sizes, first_runs)
    own = np.repeat(np.arange(len(block)), np.diff(traced.run_ends, prepend=0))
    x = np.add.reduceat((begin + end - 1 - 2 * left[own]) * sizes, first_runs) / (2 * area)
    y = np.add.reduceat((row - top[own]) * sizes, first_runs) / area
    rings = list(_parts(traced.outline, traced.outline_ends))
    return map(
        MaskObject,
        count(number),
        zip(left.tolist(), top.tolist(), (right - left).tolist(), (bottom - top).tolist(), strict=True),
        ((left == 0) | (top == 0) | (right == shape[1]) | (bottom == shape[0])).tolist(),
        area.tolist(),
        zip((left + x + 0.5).tolist(), (top + y + 0.5).tolist(), strict=True),
        (np.add.reduceat(traced.steps, first_borders) @ (1, math.sqrt(2))).tolist(),
        _parts(rings, first_borders + counts),
        _parts(traced.runs.astype(np.int32), traced.run_ends),
    )


def _parts(whole: _Whole, ends: npt.NDArray[np.integer]) -> Iterator[_Whole]:
    """Yield the parts of a whole, of which each begins where the one before ends."""
    for begin, end in pairwise([0, *ends.tolist()]):
        yield whole[begin:end]
