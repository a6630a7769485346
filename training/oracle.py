"""Who gives the masks that are asked for."""

from collections.abc import Sequence
from typing import Protocol

from training.dataset import Mask, Sample


class Oracle(Protocol):
    """Somebody who can draw masks."""

    def can_answer(self, sample: Sample) -> bool:
        """Tell whether this image's mask can be had."""
        ...

    def ask(self, samples: Sequence[Sample]) -> list[Mask]:
        """Give the masks of these images: bool [height, width] each, of the image's own size."""
        ...


class SimulatedOracle:
    """Answers from masks that were drawn before."""

    def can_answer(self, sample: Sample) -> bool:
        """Tell whether the data set has a mask for this image."""
        return sample.mask is not None

    def ask(self, samples: Sequence[Sample]) -> list[Mask]:
        """Read the masks from the data set."""
        masks = [sample.read()[1] for sample in samples]
        return [mask for mask in masks if mask is not None]
