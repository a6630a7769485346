"""The training images in memory at the working size, with their classes, as examples for training."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from alserve.arrays import Grey, Image, Mask
from alserve.geometry import resize, resize_mask, working_shape
from alserve.measure.dataset import Dataset
from alserve.terminal import progress
from training.data.augmentation import Example
from training.learning.pseudo import pixel_weights, target
from training.settings import Settings


def read_images(dataset: Dataset, short_side: int) -> list[Image]:
    """Read every image and every mask once, so that no run stops halfway at a bad file.

    Args:
        dataset: The data set.
        short_side: The working size, in pixels.

    Returns:
        The training images, at the working size: uint8 [height, width, 3], RGB.

    Raises:
        DataError: A file cannot be used, or an image and its mask differ in size.
    """
    images = []
    with progress(len(dataset.samples), "reading the data") as show:
        for done, (sample, (image, _mask)) in enumerate(zip(dataset.samples, dataset.read_all(), strict=True), start=1):
            if sample.split == "train":
                images.append(resize(image, working_shape(image.shape[0], image.shape[1], short_side)))
            show(done)
    return images


class TrainingData:
    """D: all training images with their classes. An image is named by its index.

    Args:
        dataset: Images with their classes.
        images: Its training images, from `read_images`.
        settings: Working size, targets and weights of pseudo-masks, classes without foreground.

    Attributes:
        known_empty: Images of a class without foreground, whose mask is known to be empty.
        foreground_classes: The other classes, by their index.
    """

    def __init__(self, dataset: Dataset, images: Sequence[Image], settings: Settings) -> None:
        self.dataset = dataset
        self.settings = settings
        self.samples = dataset.split("train")
        self.labels = tuple(sample.label for sample in self.samples)
        self.images = list(images)
        self.foreground_classes = tuple(
            label for label, name in enumerate(dataset.classes) if name not in settings.empty_classes
        )
        self.known_empty = frozenset(
            index for index, label in enumerate(self.labels) if label not in self.foreground_classes
        )
        self.valid = dataset.split("valid") if settings.uses_validation_masks else ()

    def __len__(self) -> int:
        return len(self.images)

    def working_mask(self, mask: Mask) -> Mask:
        """Return a mask at the working size: bool [height, width]."""
        return resize_mask(mask, working_shape(mask.shape[0], mask.shape[1], self.settings.short_side))

    @cached_property
    def validation(self) -> tuple[list[Image], list[Mask]]:
        """Images and masks of split 'valid', at the working size."""
        read = (sample.read() for sample in self.valid)
        pairs = [(image, np.zeros(image.shape[:2], np.bool_) if mask is None else mask) for image, mask in read]
        images = [resize(it, working_shape(it.shape[0], it.shape[1], self.settings.short_side)) for it, _ in pairs]
        return images, [self.working_mask(mask) for _, mask in pairs]

    def with_masks(self, masks: Mapping[int, Mask], indices: Iterable[int]) -> list[Example]:
        """Return images of L with their masks, and all images known to be empty with theirs, by rising index."""
        known = {index: masks[index] for index in indices}
        known |= {index: np.broadcast_to(np.False_, self.images[index].shape[:2]) for index in self.known_empty}
        return [Example(self.images[index], self.labels[index], known[index]) for index in sorted(known)]

    def with_pseudo(self, pseudo: Mapping[int, Grey], indices: Iterable[int]) -> list[Example]:
        """Return images by rising index, those of P with their pseudo-masks and the others with their class alone."""
        return [self._with_pseudo(index, pseudo.get(index)) for index in sorted(indices)]

    def _with_pseudo(self, index: int, pseudo: Grey | None) -> Example:
        image, label, settings = self.images[index], self.labels[index], self.settings
        if pseudo is None:
            return Example(image, label)
        mask = target(pseudo, settings.pseudo_targets)
        return Example(image, label, mask, settings.pseudo_weight, pixel_weights(pseudo, settings.pseudo_pixels))
