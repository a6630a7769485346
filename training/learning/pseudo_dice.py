"""How good pseudo-masks are, where the data set has the true masks."""

from collections.abc import Mapping, Sequence

from alserve.arrays import Grey
from alserve.geometry import resize_mask
from alserve.measure.dataset import Sample
from alserve.measure.metrics import dice
from alserve.parallel import ordered_map
from alserve.runtime.device import available_cores
from training.learning.pseudo import foreground


def pseudo_dice(pseudo: Mapping[int, Grey], samples: Sequence[Sample]) -> float | None:
    """Return the mean Dice of pseudo-masks against true masks, at the working size.

    A true mask is read here to compare with and is not kept: nothing learns from it, and no oracle was asked, so it is
    not in the budget.

    Args:
        pseudo: Pseudo-masks by image, see `training.learning.pseudo`.
        samples: The training images.

    Returns:
        0 to 1; None where the data set has none of these masks.
    """
    known = [index for index in sorted(pseudo) if samples[index].mask is not None]
    truths = ordered_map(lambda index: samples[index].read()[1], known, available_cores())
    found = [
        dice(foreground(pseudo[index]), resize_mask(truth, pseudo[index].shape))
        for index, truth in zip(known, truths, strict=True)
        if truth is not None
    ]
    return sum(found) / len(found) if found else None
