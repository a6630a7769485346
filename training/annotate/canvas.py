"""A mask that is painted shape by shape, each over those before it, within bounded memory and time."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alserve.arrays import Float64, Mask

MOST_PAINTED = 1_000_000_000
"""Largest area of the boxes around an image's shapes together, in pixels: time grows with it."""

MOST_OUTLINE = 4_000_000
"""Largest length of the outlines of an image's shapes together, in pixels: memory and time grow with it."""

CORNERS = 3
"""A ring has three at least."""

BACKGROUND = frozenset({"background", "ignore*"})
"""Labels, in lower case, of shapes that are cut out of what lies under them; QuPath writes Ignore*."""


class Canvas:
    """A mask without foreground, to be painted.

    Args:
        shape: (height, width) in pixels.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.mask: Mask = np.zeros(shape, np.bool_)
        self._painted = self._outline = 0

    def window(self, left: int, top: int, width: int, height: int) -> Mask:
        """Return the pixels of a box, in pixels, to paint on: bool [height, width].

        Raises:
            ValueError: It reaches out of the image, or all windows together have more than `MOST_PAINTED` pixels.
        """
        rows, columns = self.mask.shape
        if min(left, top) < 0 or min(width, height) < 1 or left + width > columns or top + height > rows:
            raise ValueError(f"a box of {width} x {height} pixels at {left}, {top} reaches out of the image")
        self._painted += width * height
        if self._painted > MOST_PAINTED:
            raise ValueError(f"its shapes cover more than {MOST_PAINTED:,} pixels; join those that overlap")
        return self.mask[top : top + height, left : left + width]

    def fill(self, rings: Sequence[Float64], label: str) -> None:
        """Paint the pixels whose middles lie within a polygon; see `BACKGROUND`.

        Args:
            rings: Its outer edge and its holes: each [corners, 2], x and y in pixels; what reaches out of the image is
                left out.
            label: Its label.

        Raises:
            ValueError: The image's outlines together are longer than `MOST_OUTLINE`, or see `window`.
        """
        limits = self.mask.shape[::-1]
        low = np.clip(np.floor(np.min([ring.min(axis=0) for ring in rings], axis=0)), 0, limits).astype(int)
        high = np.clip(np.ceil(np.max([ring.max(axis=0) for ring in rings], axis=0)), 0, limits).astype(int)
        if (low >= high).any():
            return
        window = self.window(*low.tolist(), *(high - low).tolist())
        parity = np.zeros((window.shape[0], window.shape[1] + 1), np.uint8)
        for ring in rings:
            rows, columns = self._crossings(ring - low, *window.shape)
            np.add.at(parity, (rows, columns), 1)
        inside = np.cumsum(parity, axis=1, dtype=np.uint8)[:, :-1] % 2 == 1  # what runs over 255 keeps its parity
        window[inside] = label.casefold() not in BACKGROUND

    def _crossings(self, ring: Float64, height: int, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return where a ring crosses the middles of rows: row, and first column with its middle right of it."""
        start, end = ring, np.roll(ring, -1, axis=0)
        upper, lower = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
        first, stop = (np.clip(np.ceil(side - 0.5), 0, height).astype(np.int64) for side in (upper, lower))
        count = stop - first  # of rows whose middles an edge crosses; its lower end is not of it
        self._outline += int(count.sum()) + len(ring)
        if self._outline > MOST_OUTLINE:
            raise ValueError(f"its outlines are longer than {MOST_OUTLINE:,} pixels; simplify them")
        edge = np.repeat(np.arange(len(ring)), count)
        rows = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count - first, count)
        (x, y), (dx, dy) = start[edge].T, (end - start)[edge].T
        columns = np.clip(np.ceil(x + dx * ((rows + 0.5 - y) / dy) - 0.5), 0, width).astype(np.int64)
        return rows, columns


def checked_ring(corners: Float64, shape: tuple[int, int]) -> Float64:
    """Return a ring of a polygon: [corners, 2], x and y in pixels.

    Raises:
        ValueError: It is none, or reaches out of an image of this (height, width) by more than a pixel.
    """
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < CORNERS:  # noqa: PLR2004  x and y
        raise ValueError("a polygon has fewer than three corners")
    if not ((corners >= -1) & (corners <= np.add(shape[::-1], 1))).all():
        raise ValueError("a polygon reaches out of the image")
    return corners
