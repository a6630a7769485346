"""Pseudo-masks: a model's masks of images that have none, as targets and weights of the loss.

A pseudo-mask is uint8 [height, width]: foreground probability as a grey level, moved so that the mask threshold lies in
the middle. From 128 on it is foreground.
"""

import numpy as np

from alserve.arrays import Float32, Grey, Mask
from alserve.images.codec import to_grey
from training.settings import PixelWeighting, Targets

MIDDLE = 128

UNCERTAIN = (64, 191)
"""Grey levels of the middle half of the probabilities."""


def pseudo_mask(probability: Float32, threshold: float) -> Grey:
    """Turn a foreground probability into a pseudo-mask.

    Args:
        probability: [height, width], 0 to 1.
        threshold: Above it, a pixel is foreground; between 0 and 1, both excluded.

    Returns:
        uint8 [height, width]: from 128 on exactly where the probability is above the threshold.
    """
    above = probability > threshold
    span = np.where(above, 1 - threshold, threshold)
    moved = 0.5 + (probability - threshold) / (2 * span)
    levels: Grey = np.clip(np.ceil(moved * 256) - 1, 0, 255).astype(np.uint8)
    levels[above & (levels < MIDDLE)] = MIDDLE  # rounding must not move a pixel over the threshold
    levels[~above & (levels >= MIDDLE)] = MIDDLE - 1
    return levels


def foreground(pseudo: Grey) -> Mask:
    """Return the foreground of a pseudo-mask: bool [height, width]."""
    above: Mask = pseudo >= MIDDLE
    return above


def target(pseudo: Grey, targets: Targets) -> Grey:
    """Return the targets of the loss, in 255ths: 0 and 255 only if hard, the probability itself if soft."""
    return pseudo if targets == "soft" else to_grey(foreground(pseudo))


def pixel_weights(pseudo: Grey, pixels: PixelWeighting) -> Grey | None:
    """Return each pixel's weight in the loss, in 255ths; None where all count alike.

    weighted: |2 p - 1|, nothing on the threshold and everything at the ends; certain: p below 1/4 and above 3/4 alone.
    """
    if pixels == "all":
        return None
    if pixels == "weighted":
        return np.abs(2 * pseudo.astype(np.int16) - 255).astype(np.uint8)
    low, high = UNCERTAIN
    return to_grey((pseudo < low) | (pseudo > high))
