"""What the working size lets be seen of an expert's masks, and which one would let enough be seen."""

from collections.abc import Sequence

import numpy as np

from alserve.arrays import Mask
from alserve.geometry import STRIDE, resize, working_shape
from alserve.measure.metrics import dice
from training.settings import MOST_SIDE

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Working sizes that are looked at, over the present one, which is the first."""

TOO_COARSE, FINE = 0.9, 0.95
"""Best Dice below which a working size hides objects, and from which on one shows them."""

MASK_STRIDE = 2
"""Working pixels, a side, of a pixel of the mask before it is scaled up, with the default decoder."""


def best_dice(mask: Mask, short_side: int) -> float:
    """Return the Dice of a mask and of the best that a network could predict: the mask itself, at the network's size.

    Args:
        mask: bool [height, width], at the image's own size.
        short_side: Working size in pixels.

    Returns:
        0 to 1; 1 where there is no foreground.
    """
    height, width = mask.shape
    rows, columns = working_shape(height, width, short_side)
    coarse = resize(mask.astype(np.float32), (rows // MASK_STRIDE, columns // MASK_STRIDE))
    return dice(resize(coarse, (height, width)) > 0.5, mask)  # noqa: PLR2004


def best_dice_by_size(mask: Mask, short_side: int) -> tuple[float, ...]:
    """Return the `best_dice` of a mask, 0 to 1, at every working size of `SCALES`; the arguments are its own."""
    return tuple(best_dice(mask, _size(short_side, scale)) for scale in SCALES)


def advise(found: Sequence[tuple[float, ...]], short_side: int) -> str | None:
    """Return a line about masks whose objects are too small for the working size; None where it shows them.

    Args:
        found: `best_dice_by_size` of each mask.
        short_side: The working size in pixels.

    Returns:
        The line, with the smallest of `SCALES` that shows them, or the largest.
    """
    now, *larger = np.mean(found, axis=0) if found else (1.0,)
    if now >= TOO_COARSE:
        return None
    enough = next((place for place, value in enumerate(larger) if value >= FINE), len(larger) - 1)
    scale = SCALES[1 + enough]
    return (
        f"the objects are small: at the working size, a short side of {short_side} pixels, even a perfect network "
        f"would reach a Dice of {100 * now:.0f} % on the new masks; --short-side {_size(short_side, scale)} allows "
        f"{100 * larger[enough]:.0f} %, and takes {scale * scale:.3g} times as long"
    )


def _size(short_side: int, scale: float) -> int:
    return min(round(scale * short_side / STRIDE) * STRIDE, MOST_SIDE)
