"""Query strategies: which images of a class the oracle is asked for. One a module, found by name in `STRATEGIES`.

Settings, command line and Algorithm 1 read this registry. Its modules import SciPy where they compute, so that help
texts can list the strategies where it is not installed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from alserve.arrays import Floats
from alserve.registry import Registry


class QueryContext(Protocol):
    """What a strategy may ask the network of the last round; each answer costs a run of it.

    Images are named by their index in D.
    """

    has_model: bool
    """Whether a network has learned masks yet; before, answers are those of theta0."""

    def features(self, images: Sequence[int]) -> Floats:
        """Return the encoder's last feature map of each image, averaged over its area: [images, channels]."""

    def places(self, image: int) -> tuple[Floats, Floats]:
        """Return all the encoder's feature maps, and the CAM of the image's class, at each place of a grid.

        Returns:
            (features [places, channels], CAM [places]); a place is 8 x 8 pixels at the working size.
        """

    def probability(self, image: int) -> Floats:
        """Return the foreground probability, [height, width], 0 to 1."""

    def samples(self, image: int) -> Floats:
        """Return the foreground probability under several draws of dropout, [draws, height, width], 0 to 1.

        They are all alike unless the strategy sets `Strategy.mask_dropout`.
        """

    def cam(self, image: int) -> Floats:
        """Return the CAM of the image's class at the mask's size, [height, width], scaled to 0..1 within the image."""


Choose = Callable[[QueryContext, Sequence[int], Sequence[int], int, np.random.Generator], list[int]]
"""(context, candidates of one class, images of the class in L, number wanted, randomness) -> the chosen ones, sorted.

There are at least as many candidates as are wanted, and the same arguments must return the same images.
"""


@dataclass(frozen=True)
class Strategy:
    """A way to choose the images that the oracle is asked for.

    Args:
        description: One line for help texts and documentation.
        choose: Returns the chosen images, class by class.
        mask_dropout: Dropout of whole channels before the mask head that the network is trained with, 0 to 1.
    """

    description: str
    choose: Choose
    mask_dropout: float = 0.0


STRATEGIES: Registry[Strategy] = Registry("strategy", __name__)
"""All strategies, by the name that `--query` knows them by."""
