"""The state of Algorithm 1: theta0, the sets L, U and P with their masks, the present round."""

from dataclasses import dataclass, field

import numpy as np

from alserve.arrays import Mask
from training.learning.data import TrainingData
from training.learning.pool import Pool
from training.run.pixels import MaskFile
from training.run.state import State, Weights


@dataclass(kw_only=True)
class LearningState(State):
    """The saved state of a run, with theta0, the sets and the masks that belong to it."""

    theta0: Weights
    """The weights that every pass starts from."""
    pool: Pool
    """The sets L, U and P."""
    masks: dict[int, Mask] = field(default_factory=dict)
    """The masks of L: bool [height, width], of the working size."""
    best_dice: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """Of those with foreground: what a working size allows, see `training.learning.working_size`."""

    @property
    def missing(self) -> list[int]:
        """Images that the oracle was asked for and that are not in L."""
        return [index for asked in self.asked for index in asked if index not in self.pool.labelled]

    @property
    def asked_now(self) -> list[int]:
        """Images that the oracle was asked for in this round."""
        return [index for asked in self.asked[self.round - 1 :] for index in asked]

    def forget(self, image: int) -> None:
        """Remove an image that the oracle will not draw from those that were asked for."""
        self.asked = [[other for other in asked if other != image] for asked in self.asked]


def fits(state: State, data: TrainingData) -> bool:
    """Tell whether a saved state names images that there are, with pseudo-masks of their sizes."""
    there, pseudo = range(len(data)), state.pseudo
    if not all(index in there for indices in (*state.asked, pseudo) for index in indices):
        return False
    if isinstance(pseudo, MaskFile):
        return all(pseudo.shape(index) == data.shape(index) for index in pseudo)
    return all(mask.dtype == np.uint8 and mask.shape == data.shape(index) for index, mask in pseudo.items())
