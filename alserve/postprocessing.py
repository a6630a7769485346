"""From probability to mask and its objects, alike for all outputs."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np

from alserve.arrays import Mask
from alserve.errors import OptionError

MOST_SMOOTH = 20.0
"""Largest standard deviation, in pixels, by which edges can be smoothed: more takes seconds on large images."""

STATED = "auto"
"""In place of micrometres: what the image's file states."""


@dataclass(frozen=True)
class PostProcessing:
    """What is done to a mask, in this order, and how its objects are told apart and measured.

    Raises:
        OptionError: A value is out of range.
    """

    threshold: float | None = None
    """Probability, 0 to 1, above which a pixel is foreground. None: the model's own."""
    smooth: float = 0.0
    """Standard deviation, in pixels, of the Gaussian of which edges are a level line; 0 leaves them."""
    fill_holes: bool = False
    """Make background foreground that no path of pixels side by side joins to the border of the image."""
    min_area: int = 0
    """Remove objects of fewer pixels; pixels that touch at a corner belong to one object."""
    split_touching: float = 0.0
    """Part objects of this width at least, in pixels, where they touch (`alserve.touching`); the mask stays the same.
    0: objects that touch are one."""
    um_per_pixel: float | Literal["auto"] | None = None
    """Side of a pixel in micrometres, to measure objects in them, too; "auto": what the image's file states, see
    `alserve.images.resolution`. None: in pixels only."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise OptionError(f"threshold {self.threshold}: it is a probability, from 0 to 1")
        if not 0 <= self.smooth <= MOST_SMOOTH:
            raise OptionError(f"smooth {self.smooth}: give 0 to {MOST_SMOOTH:g} pixels")
        if self.min_area < 0:
            raise OptionError(f"min_area {self.min_area}: give 0 pixels or more")
        if not 0 <= self.split_touching < math.inf:
            raise OptionError(f"split_touching {self.split_touching}: give 0 pixels or more")
        side = self.um_per_pixel
        if side not in {None, STATED} and (isinstance(side, str) or not 0 < side < math.inf):
            raise OptionError(f"um_per_pixel {side}: give more than 0 micrometres, or {STATED}")

    def describe(self) -> dict[str, Any]:
        """Return what differs from leaving the model's mask as it is, by name."""
        return {name: value for name, value in asdict(self).items() if value != getattr(UNCHANGED, name)}

    def finish(self, mask: Mask) -> Mask:
        """Return a mask that is above the threshold already with the rest done to it: bool [height, width]."""
        if self.smooth:
            mask = _smoothed(mask, self.smooth)
        if self.fill_holes:
            mask = _filled(mask)
        return _without_small(mask, self.min_area) if self.min_area > 1 else mask


UNCHANGED = PostProcessing()
"""The model's mask as it is."""


def _smoothed(mask: Mask, deviation: float) -> Mask:
    reach = math.ceil(3 * deviation)
    side = 2 * reach + 1
    levels = cv2.GaussianBlur(mask.astype(np.uint8) * 255, (side, side), deviation, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(levels > 127)  # noqa: PLR2004  half of 255


def _filled(mask: Mask) -> Mask:
    count, numbers = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    is_hole = np.ones(count, np.bool_)
    is_hole[0] = False  # the foreground itself
    for border in (numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]):
        is_hole[border] = False
    return np.asarray(mask | is_hole[numbers])


def _without_small(mask: Mask, least: int) -> Mask:
    _, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    stays = np.bincount(numbers.ravel()) >= least
    stays[0] = False  # the background
    return np.asarray(stays[numbers])
