"""Objects of a mask: its connected parts, with their outlines and what is measured of them.

Pixels that touch at a corner belong to one object, so that a thin crack that runs askew is not many. Coordinates are
pixels from the image's top left corner: the first pixel reaches from 0 to 1. Outlines run along the edges of the
pixels; where two edges meet inwards the corner is cut by half a pixel, so that an outline never touches itself.
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

Ring = npt.NDArray[np.float64]
"""A closed line: [points, 2], x and y in pixels; the last point is joined to the first."""


class Outline(NamedTuple):
    """The outline of an object."""

    outer: Ring
    """Its outer edge."""
    holes: tuple[Ring, ...]
    """The edges of its holes."""


@dataclass(frozen=True, eq=False)
class MaskObject:
    """A connected part of a mask."""

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
        nodes = cv2.dilate(nodes, np.ones((3, 3), np.uint8)).astype(np.uint8, copy=False)  # pixels with their edges
        contours, hierarchy = cv2.findContours(nodes, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        rings = [contour[:, 0] / 2 + (self.left, self.top) for contour in contours]
        is_hole = hierarchy[0, :, _PARENT] >= 0
        (outer,) = (ring for ring, hole in zip(rings, is_hole, strict=True) if not hole)
        return Outline(outer, tuple(ring for ring, hole in zip(rings, is_hole, strict=True) if hole))

    @property
    def solidity(self) -> float:
        """Its area over that of its convex hull, 0 to 1; holes and bays make it less."""
        rows = np.arange(self.mask.shape[0])
        first, end = self.mask.argmax(axis=1), self.mask.shape[1] - self.mask[:, ::-1].argmax(axis=1)
        holds = self.mask.any(axis=1)
        corners = [np.stack([x[holds], y[holds]], axis=1) for x in (first, end) for y in (rows, rows + 1)]
        hull = cv2.convexHull(np.concatenate(corners).astype(np.int32))
        return self.area / float(cv2.contourArea(hull))

    def values(self, values: Float32) -> Float32:
        """Return the values of its pixels, of a map of the whole image: float32 [pixels]."""
        left, top, width, height = self.box
        found: Float32 = values[top : top + height, left : left + width][self.mask]
        return found


_NEXT, _CHILD, _PARENT = 0, 2, 3
"""What the hierarchy of OpenCV tells of a contour: the next one beside it, its first hole, its parent; by number."""


def count_objects(mask: Mask) -> int:
    """Return the number of objects of a mask, bool [height, width]."""
    count, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return count - 1  # the background is one


def find_objects(mask: Mask) -> Iterator[MaskObject]:
    """Find the objects of a mask.

    Args:
        mask: bool [height, width].

    Yields:
        The objects, in reading order of their first pixels.
    """
    pixels = mask.astype(np.uint8)
    contours, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return
    _, numbers = cv2.connectedComponents(pixels, connectivity=8)
    lengths = [cv2.arcLength(contour, closed=True) for contour in contours]
    links = hierarchy[0].tolist()
    height, width = mask.shape
    firsts = {place: contours[place][0, 0].tolist() for place, link in enumerate(links) if link[_PARENT] < 0}
    order = sorted(firsts, key=lambda place: (firsts[place][1], firsts[place][0]))
    for number, place in enumerate(order, start=1):
        left, top, columns, rows = cv2.boundingRect(contours[place])
        x, y = firsts[place]
        own: Mask = numbers[top : top + rows, left : left + columns] == numbers[y, x]
        reaches = left == 0 or top == 0 or left + columns == width or top + rows == height
        perimeter, hole = lengths[place], links[place][_CHILD]
        while hole >= 0:
            perimeter += lengths[hole]
            hole = links[hole][_NEXT]
        yield MaskObject(number, left, top, own, reaches, perimeter)
