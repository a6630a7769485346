"""The losses of masks."""

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1.0
"""Pixels added to both parts of the Dice, so that two nearly empty masks agree."""


def mask_loss(logits: Tensor, masks: Tensor, weights: Tensor, pixel_weights: Tensor | float = 1.0) -> Tensor:
    """Return (1/|B|) [sum over L of l(s, y) + lambda sum over P of l(s, y^)] (Belharbi et al., WACV 2021).

    l is the pixel-mean binary cross-entropy of one image; |B| counts the images that have a mask of either kind.

    Args:
        logits: [batch, height, width].
        masks: [batch, height, width], 0 to 1.
        weights: [batch]: 1 in L, lambda in P, 0 for an image without a mask.
        pixel_weights: [batch, height, width], 0 to 1: what each pixel's entropy counts in the mean (not in the paper).

    Returns:
        A scalar; 0 where no image has a mask.
    """
    pixels = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    losses = (pixels * pixel_weights).mean(dim=(1, 2))
    return (losses * weights).sum() / (weights > 0).sum().clamp(min=1)


def dice_loss(logits: Tensor, masks: Tensor, weights: Tensor, pixel_weights: Tensor | float = 1.0) -> Tensor:
    """Return 1 - Dice of probabilities (Milletari et al., V-Net, 2016), of each image and of the batch together.

    Unlike the cross-entropy it does not fade with the share of pixels that an object has. An image without foreground
    counts in the batch's Dice only: its own would be 0 however few pixels are wrong.

    Args:
        logits: [batch, height, width].
        masks: [batch, height, width], 0 to 1.
        weights: [batch], see `mask_loss`.
        pixel_weights: [batch, height, width], 0 to 1: what each pixel counts in the sums.

    Returns:
        A scalar, 0 to 2: the mean over the images, plus that of the batch.
    """
    known = pixel_weights * (weights > 0)[:, None, None]
    probabilities, truths = logits.sigmoid() * known, masks * known
    hits, sizes = (probabilities * truths).sum(dim=(1, 2)), (probabilities + truths).sum(dim=(1, 2))
    each = (1 - (2 * hits + SMOOTH) / (sizes + SMOOTH)) * (truths.amax(dim=(1, 2)) > 0)
    together = 1 - (2 * (hits * weights).sum() + SMOOTH) / ((sizes * weights).sum() + SMOOTH)
    return (each * weights).sum() / (weights > 0).sum().clamp(min=1) + together


def consistency_loss(logits: Tensor, taught: Tensor, certainty: float, dice_weight: float = 0.0) -> Tensor:
    """Return the cross-entropy with a teacher's hard masks, over the pixels that the teacher is certain of.

    The sum over these is divided by the number of all pixels (Sohn et al., FixMatch, NeurIPS 2020, eq. 4; Yang et al.,
    UniMatch V2, 2024). Nearly all certain pixels are background where objects are small: hence the Dice beside it.

    Args:
        logits: [batch, height, width], of the strong view.
        taught: [batch, height, width], 0 to 1: the teacher's foreground probability, of the weak view.
        certainty: A pixel counts where the teacher's probability of one side is at least this, 0.5 to 1, and not 0.5.
        dice_weight: Weight of `dice_loss` over the same pixels, beside the cross-entropy.

    Returns:
        A scalar.
    """
    masks = (taught > 0.5).to(logits.dtype)  # noqa: PLR2004
    larger = torch.maximum(taught, 1 - taught)
    certain = ((larger >= certainty) & (larger > 0.5)).to(logits.dtype)  # noqa: PLR2004
    known = masks, torch.ones(len(logits), device=logits.device), certain
    loss = mask_loss(logits, *known)
    return loss + dice_weight * dice_loss(logits, *known) if dice_weight else loss
