"""The training images at the working size, with their classes, as examples for training."""

import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from alserve.arrays import Grey, Image, Mask
from alserve.errors import RunError
from alserve.files import remove_unfinished
from alserve.geometry import resize, resize_mask, working_shape
from alserve.measure.dataset import Dataset, Sample, read_mask
from alserve.terminal import progress, say
from training.data.examples import Example, Examples
from training.learning.pseudo import foreground, pixel_weights, target
from training.run.pixels import PixelFile, Shape
from training.settings import Settings

IN_MEMORY = 2**29
"""Most bytes that training images have, at the working size, to be kept in memory; more are kept in a file."""


def read_images(
    dataset: Dataset, short_side: int, path: Path | None = None, *, shared: bool = False
) -> Sequence[Image]:
    """Read every image and every mask once, so that no run stops halfway at a bad file.

    Training images of more than `IN_MEMORY` bytes are written into a file as they are read. Where the file is there
    already, nothing is read.

    Args:
        dataset: The data set.
        short_side: The working size, in pixels.
        path: The file, named by all that decides its content. Default: all images are kept in memory.
        shared: Several processes read them: they are kept in the file, however few they are.

    Returns:
        The training images, at the working size: uint8 [height, width, 3], RGB.

    Raises:
        DataError: A file cannot be used, or an image and its mask differ in size.
        RunError: The file cannot be written.
    """
    count = len(dataset.split("train"))
    if path is not None and (kept := _open(path, count)) is not None:
        return kept
    images, begun, size = _working_images(dataset, short_side), deque[Image](), 0
    for image in images:
        begun.append(image)
        size += image.nbytes
        if path is not None and (shared or size > IN_MEMORY):
            return _write(path, begun, images, count)
    return list(begun)


def _working_images(dataset: Dataset, short_side: int) -> Generator[Image]:
    with progress(len(dataset.samples), "reading the data") as show:
        for done, (sample, (image, _mask)) in enumerate(zip(dataset.samples, dataset.read_all(), strict=True), start=1):
            if sample.split == "train":
                yield resize(image, working_shape(image.shape[0], image.shape[1], short_side))
            show(done)


def _open(path: Path, count: int) -> PixelFile | None:
    """Open the file of images; None where it is not there or damaged."""
    with suppress(OSError, ValueError):
        images = PixelFile(path)
        return images if len(images) == count else None
    return None


def _write(path: Path, begun: deque[Image], rest: Generator[Image], count: int) -> PixelFile:
    """Write the images into the file, but for another run's that has written it meanwhile."""
    size = count * sum(image.nbytes for image in begun) // len(begun)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if (kept := _open(path, count)) is not None:
                rest.close()
                return kept
            if (free := shutil.disk_usage(path.parent).free) < size:
                raise RunError(
                    f"{path.parent}: the training images take about {size / 1e9:.1f} GB there while the run lasts, and "
                    f"{free / 1e9:.1f} GB are free; make room, or choose another --out or a smaller --short-side"
                )
            remove_unfinished([path])  # what a kill has left
            say(
                f"{path}: keeps the training images at the working size, about {size / 1e9:.1f} GB, while the run lasts"
            )
            return PixelFile.write(path, _emptied(begun, rest))
    except OSError as error:
        raise RunError(
            f"{path}: the training images, about {size / 1e9:.1f} GB, cannot be kept there ({error.strerror}); make "
            "room, or choose another --out"
        ) from None


def _emptied(begun: deque[Image], rest: Iterable[Image]) -> Iterator[Image]:
    while begun:
        yield begun.popleft()
    yield from rest


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
        self.images = images
        self.foreground_classes = settings.with_foreground(dataset.classes)
        self.known_empty = frozenset(
            index for index, label in enumerate(self.labels) if label not in self.foreground_classes
        )
        self.valid = dataset.split("valid") if settings.uses_validation_masks else ()

    def __len__(self) -> int:
        return len(self.images)

    def shape(self, index: int) -> Shape:
        """Return (height, width) of an image at the working size."""
        images = self.images
        return (images.shape(index) if isinstance(images, PixelFile) else images[index].shape)[:2]

    def working_mask(self, mask: Mask) -> Mask:
        """Return a mask at the working size: bool [height, width]."""
        return resize_mask(mask, working_shape(mask.shape[0], mask.shape[1], self.settings.short_side))

    def validation(self) -> tuple[Iterator[Image], Iterator[Mask]]:
        """Return images and masks of split 'valid' at the working size, each read when it is drawn."""
        side = self.settings.short_side
        images = (sample.read()[0] for sample in self.valid)
        return (
            (resize(image, working_shape(image.shape[0], image.shape[1], side)) for image in images),
            (self._valid_mask(sample) for sample in self.valid),
        )

    def _valid_mask(self, sample: Sample) -> Mask:
        """Read a mask at the working size; that of a class without foreground need not be there."""
        mask = np.zeros(sample.read()[0].shape[:2], np.bool_) if sample.mask is None else read_mask(sample.mask)
        return self.working_mask(mask)

    def with_masks(self, masks: Mapping[int, Mask], indices: Iterable[int]) -> Examples:
        """Return images of L with their masks, and all images known to be empty with theirs, by rising index."""
        return self._examples({*indices, *self.known_empty}, partial(self._with_mask, masks))

    def with_classes(self, masks: Mapping[int, Mask] | None = None) -> Examples:
        """Return all images of D with their class alone, and the least share of foreground in a mask of their class."""
        least: dict[int, float] = {}
        for index, mask in (masks or {}).items():
            if mask.any():
                label, share = self.labels[index], float(mask.mean())
                least[label] = min(share, least.get(label, share))
        return self._examples(range(len(self)), partial(self._with_class, least))

    def _with_class(self, least: Mapping[int, float], index: int) -> Example:
        label = self.labels[index]
        return Example(self.images[index], label, least=least.get(label, 0.0))

    def _examples(self, indices: Iterable[int], make: Callable[[int], Example]) -> Examples:
        return Examples([(index, self.labels[index]) for index in sorted(indices)], make)

    def with_pseudo(self, pseudo: Mapping[int, Grey], indices: Iterable[int]) -> Examples:
        """Return images of P with their pseudo-masks, by rising index."""
        return self._examples(indices, partial(self._with_pseudo, pseudo))

    def with_seeds(self, seeds: Mapping[int, Grey]) -> Examples:
        """Return images with their seeds, and all images known to be empty with their mask, by rising index."""
        return self._examples({*seeds, *self.known_empty}, partial(self._with_seed, seeds))

    def _with_seed(self, seeds: Mapping[int, Grey], index: int) -> Example:
        if (levels := seeds.get(index)) is None:
            return self._with_mask({}, index)
        weights = pixel_weights(levels, "certain")
        return Example(self.images[index], self.labels[index], foreground(levels), pixel_weights=weights)

    def _with_mask(self, masks: Mapping[int, Mask], index: int) -> Example:
        mask = np.broadcast_to(np.False_, self.shape(index)) if index in self.known_empty else masks[index]
        return Example(self.images[index], self.labels[index], mask)

    def _with_pseudo(self, pseudo: Mapping[int, Grey], index: int) -> Example:
        levels, settings = pseudo[index], self.settings
        mask, weights = target(levels, settings.pseudo_targets), pixel_weights(levels, settings.pseudo_pixels)
        return Example(self.images[index], self.labels[index], mask, settings.pseudo_weight, weights)
