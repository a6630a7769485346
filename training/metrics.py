"""Figures of merit, at the images' own size."""

from training.dataset import Mask


def dice(first: Mask, second: Mask) -> float:
    """Give 2 |A and B| / (|A| + |B|) of two bool [height, width] masks, 0 to 1; two empty masks agree: 1."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def iou(first: Mask, second: Mask) -> float:
    """Give |A and B| / |A or B| of two bool [height, width] masks, 0 to 1; two empty masks agree: 1."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0
