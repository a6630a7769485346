"""The one copy of the resize rule: training, export, the command line and the service all use it.

An image is scaled so that its short side is `short_side` pixels; its long side is rounded to the next multiple
of the network's stride. Nothing is padded, so every output maps back to the image by one plain resize, and
images of one camera share one working shape (which is what makes batches possible).
"""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from alserve.arrays import Mask

STRIDE = 32
"""Height and width of a network input are multiples of this many pixels."""

MAX_ASPECT = 4
"""A longer image is squeezed to this ratio of long to short side, which bounds the memory that one image takes."""


def working_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the network's input shape for an image.

    Args:
        height: Rows of the image, in pixels, at least 1.
        width: Columns of the image, in pixels, at least 1.
        short_side: Wanted short side in pixels, a multiple of `STRIDE`.

    Returns:
        (height, width) in pixels, both multiples of `STRIDE`, the shorter one equal to `short_side`.
    """
    aspect = min(max(height, width) / min(height, width), MAX_ASPECT)
    long_side = max(round(short_side * aspect / STRIDE) * STRIDE, short_side)
    return (short_side, long_side) if height <= width else (long_side, short_side)


def resize(array: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Resize an image or a map: area averaging to shrink, bilinear to enlarge.

    Args:
        array: [height, width] or [height, width, channels], uint8 or float32.
        shape: Wanted (height, width) in pixels.

    Returns:
        The same dtype and channels at the wanted shape; the input itself if it has that shape already.
    """
    if array.shape[:2] == shape:
        return array
    shrinks = shape[0] * shape[1] < array.shape[0] * array.shape[1]
    return cv2.resize(array, shape[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


BAND = 2048
"""Rows that `enlarged` makes at a time."""


def enlarged(array: npt.NDArray[Any], shape: tuple[int, int]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Resize a map as `resize` does, but yield it in bands, so that a huge one never is in memory as a whole.

    Args:
        array: [height, width], uint8 or float32.
        shape: Wanted (height, width) in pixels.

    Yields:
        (first row, the band's pixels [at most `BAND` rows, width]), from top to bottom.
    """
    height, width = shape
    if height <= BAND or array.shape[0] >= height:
        whole = resize(array, shape)
        for top in range(0, height, BAND):
            yield top, whole[top : top + BAND]
        return
    rows = (np.arange(height) + 0.5) * (array.shape[0] / height) - 0.5
    above = np.clip(np.floor(rows).astype(np.int64), 0, array.shape[0] - 1)
    below = np.clip(above + 1, 0, array.shape[0] - 1)
    share = np.clip(rows - above, 0, 1).astype(np.float32)[:, None]
    for top in range(0, height, BAND):
        band = slice(top, top + BAND)
        mixed = array[above[band]] * (1 - share[band]) + array[below[band]] * share[band]
        yield top, resize(mixed.astype(array.dtype), (mixed.shape[0], width))


def resize_mask(mask: Mask, shape: tuple[int, int]) -> Mask:
    """Resize a binary mask: a pixel of the result is foreground where at least half of its area was.

    A mask with foreground never becomes one without: where no pixel has half of its area, each that the centre of a
    foreground pixel falls into is foreground.

    Args:
        mask: [height, width] bool.
        shape: Wanted (height, width) in pixels.

    Returns:
        [height, width] bool at the wanted shape.
    """
    found = resize(mask.astype(np.float32), shape) >= 0.5  # noqa: PLR2004
    return found if found.any() or not mask.any() else _nearest(mask, shape)


def _nearest(mask: Mask, shape: tuple[int, int]) -> Mask:
    found = np.zeros(shape, np.bool_)
    sides = zip(np.nonzero(mask), mask.shape, shape, strict=True)
    found[tuple((2 * places + 1) * new // (2 * old) for places, old, new in sides)] = True
    return found
