"""Borders of objects, many at once: their outlines along the edges of pixels, and the runs of pixels between them.

OpenCV follows a border from pixel to pixel, by steps to one of eight neighbours, with the background always on the same
side (Suzuki and Abe, Topological structural analysis of digitized binary images by border following, 1985). The step
that leads to a pixel and the one that leads on tell which of its neighbours are background between them; what follows
from that is looked up in tables.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.int32]
"""[points, 2], x and y."""

Numbers = npt.NDArray[np.int64]
"""Whole numbers, of any shape."""

_AROUND = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
"""From a pixel to its neighbours, x and y, by turns at its sides and at its corners. In half pixels: from its middle to
the middles of its sides, and to its corners."""

_RIGHT, _LEFT, _TOP_LEFT = 0, 4, 5
"""Places in `_AROUND`."""

_STEPS = 9
"""Number of steps, with that of a single pixel to itself."""

_AXIAL, _DIAGONAL = 1, 2
"""Lengths of steps, along both axes together."""


def _step(x: int, y: int) -> int:
    return 3 * y + x + 4


def _background(back: int, on: int) -> list[int]:
    """Return the neighbours between that which a border comes from and that which it goes on to, in its order."""
    return [(back - turn) % 8 for turn in range(1, (back - on - 1) % 8 + 1)]


def _is_point(neighbour: int, background: Sequence[int]) -> bool:
    """Tell whether an outline has a point there: at a corner between two sides; on a side, where it cuts a corner."""
    between = all((neighbour + turn) % 8 in background for turn in (-1, 1))
    is_corner = neighbour % 2 == 1
    return between == is_corner


_BACKGROUND = {
    _STEPS * _step(-_AROUND[back][0], -_AROUND[back][1]) + _step(*_AROUND[on]): _background(back, on)
    for back in range(8)
    for on in range(8)
} | {_STEPS * _step(0, 0) + _step(0, 0): [(_TOP_LEFT - turn) % 8 for turn in range(8)]}
"""Background neighbours by turn, which is `_STEPS` times the step to a pixel, and the step on."""

_POINTS = {turn: [each for each in near if _is_point(each, near)] for turn, near in _BACKGROUND.items()}


def _table(values: dict[int, int]) -> npt.NDArray[np.intp]:
    table = np.zeros(_STEPS**2, np.intp)
    table[list(values)] = list(values.values())
    return table


def _place(neighbour: int) -> npt.NDArray[np.intp]:
    """Return, by turn, which of the points of a pixel lies there."""
    return _table({turn: points.index(neighbour) for turn, points in _POINTS.items() if neighbour in points})


_BEGINS = _table({turn: _LEFT in near for turn, near in _BACKGROUND.items()}) > 0
_ENDS = _table({turn: _RIGHT in near for turn, near in _BACKGROUND.items()}) > 0
_COUNT = _table({turn: len(points) for turn, points in _POINTS.items()})
_FIRST_OF_OUTER, _FIRST_OF_HOLE = _place(_TOP_LEFT), _place(_RIGHT)
_OFFSETS = np.array([_AROUND[each] for turn in sorted(_POINTS) for each in _POINTS[turn]], np.int32) + 1
"""Points of all turns, one behind the other, in half pixels from the top left corner of the pixel."""
_OFFSETS_BEGIN = _COUNT.cumsum() - _COUNT
_LENGTH = np.array([abs(x) + abs(y) for y in (-1, 0, 1) for x in (-1, 0, 1)])


class Traced(NamedTuple):
    """What the borders of some objects tell."""

    outline: Points
    """The points of all outlines, one behind the other, in half pixels from the top left corner of the image."""
    outline_ends: Numbers
    """[borders], where each outline ends in `outline`."""
    steps: Numbers
    """[borders, 2], number of steps to the side and askew."""
    runs: Numbers
    """[runs, 3], row, first column, and the column behind the last, of the runs of pixels, object by object."""
    run_ends: Numbers
    """[objects], where each object ends in `runs`."""


def trace(borders: Sequence[Points], objects: Numbers, outer: npt.NDArray[np.bool_], shape: tuple[int, int]) -> Traced:
    """Follow borders.

    Args:
        borders: The pixels of each border, at least one, in its order, all of an object one behind the other.
        objects: [borders], whose border it is, from 0 on.
        outer: [borders], whether it is an outer border, or that of a hole.
        shape: (height, width) of the image in pixels.
    """
    pixels = np.concatenate(borders)
    lengths = np.array([len(border) for border in borders])
    ends = lengths.cumsum()
    begins = ends - lengths
    after = np.arange(1, len(pixels) + 1)
    after[ends - 1] = begins
    move = pixels.take(after, axis=0) - pixels  # `take` is ten times as fast as an index
    step = 3 * move[:, 1] + move[:, 0] + _step(0, 0)
    turn = step.copy()
    turn[after] += _STEPS * step

    outline, outline_ends = _outlines(pixels, turn, begins, outer)
    kinds = _LENGTH[step]
    steps = [np.add.reduceat(kinds == kind, begins, dtype=np.int64) for kind in (_AXIAL, _DIAGONAL)]
    runs = _runs(pixels, turn, np.repeat(objects, lengths), shape)
    return Traced(outline, outline_ends, np.stack(steps, axis=1), runs[:, 1:], np.bincount(runs[:, 0]).cumsum())


def _outlines(pixels: Points, turn: Numbers, begins: Numbers, outer: npt.NDArray[np.bool_]) -> tuple[Points, Numbers]:
    """Return the points of all outlines, and where each outline ends."""
    count = _COUNT[turn]
    behind = count.cumsum()
    place = np.arange(behind[-1])
    offsets = _OFFSETS.take(place + np.repeat(_OFFSETS_BEGIN[turn] - behind + count, count), axis=0)
    points = 2 * np.repeat(pixels, count, axis=0) + offsets
    ends = behind[np.append(begins[1:], len(pixels)) - 1]
    sizes = np.diff(ends, prepend=0)
    first = np.where(outer, _FIRST_OF_OUTER[turn[begins]], _FIRST_OF_HOLE[turn[begins]])
    place += np.repeat(first, sizes)
    place -= np.repeat(sizes, sizes) * (place >= np.repeat(ends, sizes))
    return points.take(place, axis=0), ends


def _runs(pixels: Points, turn: Numbers, objects: Numbers, shape: tuple[int, int]) -> Numbers:
    """Return object, row, first column, and the column behind the last, of all runs, in this order."""
    height, width = shape
    place = (objects * height + pixels[:, 1]) * width + pixels[:, 0]
    begins, ends = np.sort(place[_BEGINS[turn]]), np.sort(place[_ENDS[turn]])
    rows, column = np.divmod(begins, width)
    own, row = np.divmod(rows, height)
    return np.stack([own, row, column, column + 1 + ends - begins], axis=1)
