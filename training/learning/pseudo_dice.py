"""How good pseudo-masks are, where the data set has the true masks."""

from collections.abc import Mapping, Sequence

from alserve.arrays import Grey
from alserve.geometry import resize_mask
from alserve.measure.dataset import Sample, read_mask
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

    def compare(index: int) -> float:
        levels = pseudo[index]
        return dice(foreground(levels), resize_mask(read_mask(samples[index].mask or ""), levels.shape))

    found = list(ordered_map(compare, known, available_cores()))
    return sum(found) / len(found) if found else None
