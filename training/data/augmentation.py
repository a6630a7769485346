"""What a training step looks at: crops of images with their masks, cut, turned and coloured at random.

A crop is a function of (seed, its place in the sequence), whatever the workers and the device.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from alserve.arrays import Grey, Image, Mask
from alserve.images.codec import to_grey
from training.seeds import derive_seed
from training.settings import Settings


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

    def layers(self) -> Grey:
        """Return mask and pixel_weights, in 255ths: uint8 [2, height, width]."""
        sides = self.image.shape[:2]
        mask = np.zeros(sides, np.bool_) if self.mask is None else self.mask
        target = mask if mask.dtype == np.uint8 else to_grey(mask.astype(np.bool_))
        return np.stack([target, np.full(sides, 255, np.uint8) if self.pixel_weights is None else self.pixel_weights])


ZOOM = (0.8, 1.25)
"""Side of a crop's field of view, over the side of the crop."""


@cache
def augmentation(crop: int, shape: tuple[int, int], *, any_orientation: bool) -> v2.Transform:
    """Return the joint transform of image and mask: crop, flips and quarter turns for both, colours for the image.

    Args:
        crop: Side of the result, in pixels.
        shape: (height, width) of the images, in pixels.
        any_orientation: Flip and turn every way, not only left and right.
    """
    share = crop * crop / (shape[0] * shape[1])
    scale = (min(1, share * ZOOM[0] ** 2), min(1, share * ZOOM[1] ** 2))
    around = [
        v2.RandomVerticalFlip(),
        v2.RandomChoice([v2.Identity(), v2.Lambda(_quarter_turn)]),
    ]
    return v2.Compose(
        [
            v2.RandomResizedCrop(crop, scale=scale, ratio=(0.9, 1.1), antialias=True),
            v2.RandomHorizontalFlip(),
            *(around if any_orientation else []),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.04),
        ]
    )


def _quarter_turn(picture: Tensor) -> Tensor:
    turned: Tensor = v2.functional.rotate(picture, 90)
    return turned


class Crops(TorchDataset[dict[str, Tensor]]):
    """A sequence of augmented crops; the i-th is the same whenever and wherever it is drawn.

    Each is a dict: image uint8 [3, crop, crop]; label int64; mask and pixel_weights float32 [crop, crop], 0 to 1;
    weight float32, 0 where there is no mask.

    Args:
        groups: Examples, and the number of slots of every batch that they fill. Each group is drawn in random order,
            all its examples once before any comes again.
        settings: Batch and crop size, kinds of augmentation.
        steps: Length of the sequence, in batches.
        seed: Drives the order and the augmentation.
    """

    def __init__(
        self, groups: Sequence[tuple[Sequence[Example], int]], settings: Settings, steps: int, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        columns: list[Iterator[tuple[Sequence[Example], int]]] = []
        for examples, slots in groups:
            columns += [_endless(examples, rng)] * slots
        self.places = [next(column) for _ in range(steps) for column in columns]
        self.crop = settings.crop_side
        self.any_orientation = settings.any_orientation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        group, place = self.places[index]
        example = group[place]
        image = tv_tensors.Image(torch.from_numpy(example.image).permute(2, 0, 1))
        layers = tv_tensors.Mask(torch.from_numpy(example.layers()))
        transform = augmentation(self.crop, (layers.shape[1], layers.shape[2]), any_orientation=self.any_orientation)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, index))
            image, layers = transform(image, layers)
        mask, pixel_weights = layers.as_subclass(Tensor) / 255
        weight = 0.0 if example.mask is None else example.weight
        return {
            "image": image.as_subclass(Tensor),
            "label": torch.tensor(example.label),
            "mask": mask,
            "pixel_weights": pixel_weights,
            "weight": torch.tensor(weight),
        }


def _endless(examples: Sequence[Example], rng: np.random.Generator) -> Iterator[tuple[Sequence[Example], int]]:
    """Draw examples by their places: only those that are looked at are made, each when it is looked at."""
    while True:
        for place in rng.permutation(len(examples)):
            yield examples, int(place)


def pseudo_slots(settings: Settings, labelled: int, others: int) -> int:
    """Return the number of images of a batch that come from P: the set share, but none more often than one of L.

    Args:
        settings: Batch size and share.
        labelled: Images in L.
        others: Images in P.
    """
    if not others:
        return 0
    share = min(settings.pseudo_share, others / (labelled + others))
    return min(max(1, round(settings.batch * share)), settings.batch - 1)
