"""Objects that touch, told apart: a mask is parted at its necks.

Each pixel climbs the distance to the background by the steepest way; those that arrive at one summit are a basin (a
watershed). Two basins stay parted only where the neck between them is clearly narrower than both, so that a rough edge,
a bend or an oval parts nothing.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from alserve.arrays import Float32, Mask

Numbers = npt.NDArray[np.int32]
"""[height, width]: 0 the background, from 1 on the object that a pixel belongs to."""

NECK = 0.75
"""Largest width of a neck, as a share of the width of the narrower of the two parts that it joins."""

_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, -1), (-1, 0), (-1, -1), (-1, 1))
"""From a pixel to its eight neighbours: rows, columns. Of equal ways the first is taken."""

_BAND = 128
"""Rows that climb together: what is needed in between is small."""


def part(mask: Mask, narrowest: float) -> Numbers:
    """Part the objects of a mask where they touch.

    Args:
        mask: bool [height, width].
        narrowest: Width of the narrowest object, in pixels, that of the largest disc within it: what is narrower is a
            bump of another one.

    Returns:
        See `Numbers`; together the objects are the mask, and each is connected.
    """
    if mask.all():  # there is no background to be at a distance from
        return np.ones(mask.shape, np.int32)
    pixels = mask.astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(pixels, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
    distance = np.sqrt(np.rint(distance * distance))  # its last bit differs from call to call
    return part_basins(distance, lambda width, neck: width < narrowest or neck > NECK * width)


def part_basins(distance: Float32, are_one: Callable[[float, float], bool]) -> Numbers:
    """Part what has a distance above 0 into basins, and join those that are one object.

    Args:
        distance: float32 [height, width], to the background, in pixels; or other heights, 0 in the background.
        are_one: Tells it of two basins that touch, by the width of the narrower and that of the neck between them:
            twice the distance of its summit, or of the highest way between, less 1.

    Returns:
        See `Numbers`.
    """
    basins, summits = _basins(distance)
    widths = (2 * summits - 1).tolist()
    parents = list(range(len(summits)))

    def root(basin: int) -> int:
        while parents[basin] != basin:
            parents[basin] = parents[parents[basin]]
            basin = parents[basin]
        return basin

    for one, other, neck in _necks(basins, distance):
        lower, higher = sorted((root(one), root(other)), key=lambda basin: (widths[basin], -basin))
        if are_one(widths[lower], neck):
            parents[lower] = higher
    roots = np.array([root(basin) for basin in range(len(parents))])
    _, numbers = np.unique(roots, return_inverse=True)
    return numbers.astype(np.int32)[basins]


def _basins(distance: Float32) -> tuple[Numbers, Float32]:
    """Return the basin of each pixel, 0 the background, and the distance of each one's summit: float32 [basins + 1]."""
    above = np.concatenate([_climb(distance, top) for top in range(0, len(distance), _BAND)], axis=None)
    summits = (above == np.arange(above.size, dtype=np.int32)).reshape(distance.shape) & (distance > 0)
    while not np.array_equal(above, further := above[above]):
        above = further
    count, basins = cv2.connectedComponents(summits.astype(np.uint8), connectivity=8)  # a summit may be flat
    heights = np.zeros(count, np.float32)
    heights[basins[summits]] = distance[summits]
    return np.asarray(basins.ravel()[above].reshape(basins.shape), np.int32), heights


def _climb(distance: Float32, top: int) -> npt.NDArray[np.int32]:
    """Return, for the rows of a band, to which pixel a step from each leads: by their place in the whole; or itself."""
    width = distance.shape[1]
    ends = (int(top == 0), int(top + _BAND >= len(distance)))
    around = np.pad(distance[max(0, top - 1) : top + _BAND + 1], (ends, (1, 1)))
    here = around[1:-1, 1:-1]
    place = np.arange(top * width, top * width + here.size, dtype=np.int32).reshape(here.shape)
    above, steepest = place.copy(), np.zeros(here.shape, np.float32)
    for down, right in _STEPS:
        neighbour = around[1 + down :, 1 + right :][: len(here), :width]
        slope = (neighbour - here) / np.float32(np.hypot(down, right))
        better = slope > steepest
        np.copyto(steepest, slope, where=better)
        np.copyto(above, place + np.int32(down * width + right), where=better)
    above[here == 0] = place[here == 0]  # the background climbs nowhere
    return above


def _necks(basins: Numbers, distance: Float32) -> list[tuple[int, int, float]]:
    """Return which basins touch, and how wide they do, in pixels: widest first."""
    height, width = basins.shape
    pairs, saddles = [], []
    for down, right in _STEPS[:4]:
        rows, left = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        below, beside = slice(down, height), slice(max(0, right), width + min(0, right))
        one, other = basins[rows, left], basins[below, beside]
        touch = (one != other) & (one > 0) & (other > 0)
        a, b = one[touch].astype(np.int64), other[touch].astype(np.int64)
        pairs.append((np.minimum(a, b) << 32) | np.maximum(a, b))
        saddles.append(np.minimum(distance[rows, left][touch], distance[below, beside][touch]))
    pair, saddle = np.concatenate(pairs), np.concatenate(saddles)
    order = np.lexsort((-saddle, pair))
    pair, first = np.unique(pair[order], return_index=True)
    saddle = saddle[order][first]
    order = np.argsort(-saddle, kind="stable")
    found = zip(pair[order].tolist(), (2 * saddle[order] - 1).tolist(), strict=True)
    return [(each >> 32, each & 0xFFFFFFFF, neck) for each, neck in found]
