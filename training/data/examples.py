"""Training images with what is known of them: their class, and perhaps a mask."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from alserve.arrays import Grey, Image, Mask
from alserve.images.codec import to_grey


@dataclass(frozen=True)
class Example:
    """A training image at the working size."""

    image: Image
    """uint8 [height, width, 3], RGB."""
    label: int
    mask: Mask | Grey | None = None
    """bool [height, width], or uint8 in 255ths for a soft one; none where only the class is taught."""
    weight: float = 1.0
    """Weight of the mask's loss: 1 for an expert's, lambda for a pseudo-mask."""
    pixel_weights: Grey | None = None
    """Weight of each of its pixels: uint8 [height, width], in 255ths; None where all count alike."""
    least: float = 0.0
    """Least share of foreground in an image of its class that has some, 0 to 1, by the masks so far; 0: not known."""

    def layers(self) -> Grey:
        """Return mask and pixel_weights, in 255ths: uint8 [2, height, width]."""
        sides = self.image.shape[:2]
        mask = np.zeros(sides, np.bool_) if self.mask is None else self.mask
        target = mask if mask.dtype == np.uint8 else to_grey(mask.astype(np.bool_))
        return np.stack([target, np.full(sides, 255, np.uint8) if self.pixel_weights is None else self.pixel_weights])


class Examples(Sequence[Example]):
    """Examples that are made when they are looked at.

    Args:
        members: Images with their classes, in order.
        make: Returns the example of an image.
    """

    def __init__(self, members: Iterable[tuple[int, int]], make: Callable[[int], Example]) -> None:
        pairs = list(members)
        self.indices = [index for index, _ in pairs]
        self.labels = [label for _, label in pairs]
        self._make = make

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Example:  # type: ignore[override]  # slices are not needed
        return self._make(self.indices[place])


def labels_of(examples: Sequence[Example]) -> list[int]:
    """Return the class of every example, without making any."""
    return examples.labels if isinstance(examples, Examples) else [example.label for example in examples]
