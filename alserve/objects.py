"""Objects of a mask: its connected parts, or parts of these, with their outlines and what is measured of them.

Pixels that touch at a corner belong to one object, so that a thin crack that runs askew is not many. Coordinates are
pixels from the image's top left corner: the first pixel reaches from 0 to 1. Outlines run along the edges of the
pixels; where two edges meet inwards the corner is cut by half a pixel, so that an outline never touches itself. Where
objects were parted, their outlines may overlap by this much.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from alserve.arrays import Float32, Mask
from alserve.touching import Numbers, part

Ring = npt.NDArray[np.float64]
"""A closed line: [points, 2], x and y in pixels; the last point is joined to the first."""


_PARENT = 3
"""Where the hierarchy of OpenCV tells the parent of an edge, which that of a hole has."""

_SQUARE = np.ones((3, 3), np.uint8)
_CORNERS = np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
"""Of a pixel, from its top left one: x and y."""


class Outline(NamedTuple):
    """The outline of an object."""

    outer: Ring
    """Its outer edge."""
    holes: tuple[Ring, ...]
    """The edges of its holes."""


@dataclass(frozen=True, eq=False)
class MaskObject:
    """A connected part of a mask, or one of the objects that it was parted in."""

    number: int
    """From 1, in reading order of the objects' first pixels."""
    left: int
    """Column of its leftmost pixel."""
    top: int
    """Row of its highest pixel."""
    mask: Mask
    """Its pixels in its box: bool [height, width]."""
    touches_border: bool
    """Whether it reaches the border of the image: a part of it may lie outside."""
    perimeter: float
    """Length of its edges, those of holes included, in pixels: of the chain code through the pixels' middles.

    Steps to the side count 1 and askew the square root of 2 (Freeman, Computer processing of line-drawing images,
    1974); along the edges of pixels a line that runs askew would be too long by up to 41 %.
    """

    @cached_property
    def area(self) -> int:
        """Number of its pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height, in pixels."""
        height, width = self.mask.shape
        return self.left, self.top, width, height

    @property
    def centroid(self) -> tuple[float, float]:
        """Mean x and y of its pixels' middles."""
        height, width = self.mask.shape
        x = np.count_nonzero(self.mask, axis=0) @ np.arange(width) / self.area
        y = np.count_nonzero(self.mask, axis=1) @ np.arange(height) / self.area
        return self.left + float(x) + 0.5, self.top + float(y) + 0.5

    @property
    def equivalent_diameter(self) -> float:
        """Diameter of the disc of the same area, in pixels."""
        return math.sqrt(4 * self.area / math.pi)

    @property
    def outline(self) -> Outline:
        """Its outline, see the module; found anew each time, for it takes more memory than all else."""
        nodes = np.zeros([2 * side + 1 for side in self.mask.shape], np.uint8)
        nodes[1::2, 1::2] = self.mask
        nodes = cv2.dilate(nodes, _SQUARE).astype(np.uint8, copy=False)  # pixels with their edges
        contours, hierarchy = cv2.findContours(nodes, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        rings = [contour[:, 0] / 2 + (self.left, self.top) for contour in contours]
        is_hole = hierarchy[0, :, _PARENT] >= 0
        (outer,) = (ring for ring, hole in zip(rings, is_hole, strict=True) if not hole)
        return Outline(outer, tuple(ring for ring, hole in zip(rings, is_hole, strict=True) if hole))

    @property
    def solidity(self) -> float:
        """Its area over that of its convex hull, 0 to 1; holes and bays make it less."""
        (edge,), _ = cv2.findContours(self.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        corners = cv2.convexHull(edge) + _CORNERS
        hull = cv2.convexHull(corners.reshape(-1, 2).astype(np.int32))
        return self.area / float(cv2.contourArea(hull))

    def values(self, values: Float32) -> Float32:
        """Return the values of its pixels, of a map of the whole image: float32 [pixels]."""
        left, top, width, height = self.box
        found: Float32 = values[top : top + height, left : left + width][self.mask]
        return found


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
    numbers, boxes = _parted(part(mask, split_touching)) if split_touching else _connected(mask)
    height, width = mask.shape
    for place, (number, left, top, right, bottom) in enumerate(boxes, start=1):
        own: Mask = numbers[top:bottom, left:right] == number
        edges, _ = cv2.findContours(own.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        perimeter = sum(cv2.arcLength(edge, closed=True) for edge in edges)
        reaches = left == 0 or top == 0 or right == width or bottom == height
        yield MaskObject(place, left, top, own, reaches, perimeter)


_Boxes = list[tuple[int, int, int, int, int]]
"""Number, left, top, right and bottom of each object, in reading order of their first pixels."""


def _connected(mask: Mask) -> tuple[Numbers, _Boxes]:
    """Return the connected parts of a mask."""
    pixels = mask.astype(np.uint8)
    numbers = np.asarray(cv2.connectedComponents(pixels, connectivity=8)[1], np.int32)
    edges, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    firsts = {
        tuple(edge[0, 0].tolist()): cv2.boundingRect(edge)  # an edge begins at the first of its pixels
        for edge, parent in zip(edges, hierarchy[0, :, _PARENT] if edges else (), strict=True)
        if parent < 0
    }
    boxes = []
    for x, y in sorted(firsts, key=lambda first: first[::-1]):
        left, top, width, height = firsts[x, y]
        boxes.append((int(numbers[y, x]), left, top, left + width, top + height))
    return numbers, boxes


def _parted(numbers: Numbers) -> tuple[Numbers, _Boxes]:
    """Return the objects of a mask that was parted, from the runs of their pixels."""
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
    return numbers, [tuple(box) for box in boxes[np.argsort(first)].tolist()]
