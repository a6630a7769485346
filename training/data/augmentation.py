"""What a training step looks at: crops of images with their masks, cut, turned and coloured at random.

A crop is a function of (seed, its place in the sequence), whatever the workers and the device.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from alserve.arrays import Mask
from training.data.examples import Example, labels_of
from training.seeds import derive_seed
from training.settings import Settings

ZOOM = (0.8, 1.25)
"""Side of a crop's field of view, over the side of the crop."""

SQUEEZE = 2
"""Long side of what is squeezed into a square, over its short side, at most."""

HALF = 128
"""Grey level of a mask from which on a pixel is of an object."""


class Layers(tv_tensors.Image):  # type: ignore[misc]  # of a library without types
    """Mask and weights of pixels, uint8 [2, height, width] in 255ths, which are resized as their image is.

    torchvision resizes its own masks to the nearest pixel, counted from the corners and not from the centres: half a
    pixel beside the image, which of a small object's outline is much.
    """


class ObjectCrop(v2.RandomResizedCrop):  # type: ignore[misc]  # of a library without types
    """A random crop of image and mask; in a share of the cases it is moved so that it holds a part of an object.

    Each connected object of the mask is as likely as any other, however small it is.

    Args:
        size: Side of the result, in pixels.
        around_object: That share, 0 to 1.
        options: Of torchvision's `RandomResizedCrop`.
    """

    def __init__(self, size: int, *, around_object: float, **options: Any) -> None:  # noqa: ANN401
        super().__init__(size, **options)
        self.around_object = around_object

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return top, left, height and width of the field of view."""
        window: dict[str, Any] = super().make_params(flat_inputs)
        layers = [part for part in flat_inputs if isinstance(part, Layers)]
        if layers and self.around_object and torch.rand(()) < self.around_object:
            objects = (layers[0][0] >= HALF).numpy()
            if objects.any():
                row, column = object_pixel(objects)
                window["top"] = _start(row, int(window["height"]), objects.shape[0])
                window["left"] = _start(column, int(window["width"]), objects.shape[1])
        return window


def object_pixel(objects: Mask) -> tuple[int, int]:
    """Return row and column of a pixel of an object, both drawn, of a mask: bool [height, width], not empty."""
    count, numbers = cv2.connectedComponents(objects.astype(np.uint8))
    rows, columns = np.nonzero(numbers == int(torch.randint(1, count, ())))
    place = int(torch.randint(len(rows), ()))
    return int(rows[place]), int(columns[place])


def _start(pixel: int, length: int, whole: int) -> int:
    """Draw where a window of this length begins, so that it holds the pixel."""
    return int(torch.randint(max(0, pixel - length + 1), min(whole - length, pixel) + 1, ()))


@cache
def field_of_view(
    crop: int, shape: tuple[int, int], *, any_orientation: bool, around_object: float = 0.0
) -> v2.Transform:
    """Return the joint transform of image and mask: crop, flips and quarter turns.

    Args:
        crop: Side of the result, in pixels.
        shape: (height, width) of the images, in pixels.
        any_orientation: Flip and turn every way, not only left and right.
        around_object: See `ObjectCrop`.
    """
    share = crop * crop / (shape[0] * shape[1])
    scale = (min(1, share * ZOOM[0] ** 2), min(1, share * ZOOM[1] ** 2))
    cut = ObjectCrop(crop, around_object=around_object, scale=scale, ratio=(0.9, 1.1), antialias=True)
    return v2.Compose([cut, *_orientations(any_orientation=any_orientation)])


@cache
def whole_view(side: int, shape: tuple[int, int], *, any_orientation: bool) -> v2.Transform:
    """Return the joint transform of image and mask that keeps all of them: squeezed to a square, flips, quarter turns.

    A crop may miss the only object that makes an image of its class. Of images longer than `SQUEEZE` to one it is a
    part, so long.

    Args:
        side: Of the result, in pixels.
        shape: (height, width) of the images, in pixels.
        any_orientation: Flip and turn every way, not only left and right.
    """
    part = [min(length, SQUEEZE * min(shape)) for length in shape]
    return v2.Compose(
        [
            v2.RandomCrop(part),
            v2.Resize((side, side), antialias=True),
            *_orientations(any_orientation=any_orientation),
        ]
    )


def _orientations(*, any_orientation: bool) -> list[v2.Transform]:
    around = [v2.RandomVerticalFlip(), v2.RandomChoice([v2.Identity(), v2.Lambda(_quarter_turn)])]
    return [v2.RandomHorizontalFlip(), *(around if any_orientation else [])]


LIGHT = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.04)
"""Colours of a labelled image."""

STRONG = v2.Compose(
    [
        v2.RandomApply([v2.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.04)], p=0.8),
        v2.RandomGrayscale(p=0.1),
    ]
)
"""Colours of the strong view (Sohn et al., FixMatch, 2020; without blur, which wipes out small objects)."""


def _quarter_turn(picture: Tensor) -> Tensor:
    turned: Tensor = v2.functional.rotate(picture, 90)
    return turned


Place = tuple[Sequence[Example], int]
"""An example, as a sequence and its place in it."""


class Crops(TorchDataset[dict[str, Tensor]]):
    """A sequence of augmented crops; the i-th is the same whenever and wherever it is drawn.

    Each is a dict: image uint8 [3, crop, crop]; label int64; mask and pixel_weights float32 [crop, crop], 0 to 1;
    weight float32, 0 where there is no mask; and if `views`, weak, uint8 [3, crop, crop]: the same field of view in its
    own colours, while `image` is strong; and least, float32, see `Example`.

    Args:
        groups: Examples, and the number of slots of every batch that they fill. Each group's classes come in turn, so
            that rare ones are seen as often as frequent ones; of a class all examples come once before any comes again.
        settings: Crop size, kinds of augmentation.
        steps: Length of the sequence, in batches.
        seed: Drives the order and the augmentation.
        whole: Show images as a whole, in squares of the working size, see `whole_view`.
        views: Return a weak and a strong view.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[Example], int]],
        settings: Settings,
        steps: int,
        seed: int,
        *,
        whole: bool = False,
        views: bool = False,
    ) -> None:
        rng = np.random.default_rng(seed)
        columns: list[Iterator[Place]] = []
        for examples, slots in groups:
            columns += [_in_turn(examples, rng)] * slots
        self.places = [next(column) for _ in range(steps) for column in columns]
        self.batch = len(columns)
        self.whole = whole
        self.settings = settings
        self.seed = seed
        self.views = views

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        group, place = self.places[index]
        example = group[place]
        image = tv_tensors.Image(torch.from_numpy(example.image).permute(2, 0, 1))
        layers = Layers(torch.from_numpy(example.layers()))
        cut = self._cut((layers.shape[1], layers.shape[2]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, index))
            weak, layers = cut(image, layers)
            image = STRONG(weak) if self.views else LIGHT(weak)
        mask, pixel_weights = layers.as_subclass(Tensor) / 255
        weight = 0.0 if example.mask is None else example.weight
        return {
            "image": image.as_subclass(Tensor),
            **({"weak": weak.as_subclass(Tensor), "least": torch.tensor(example.least)} if self.views else {}),
            "label": torch.tensor(example.label),
            "mask": mask,
            "pixel_weights": pixel_weights,
            "weight": torch.tensor(weight),
        }

    def _cut(self, shape: tuple[int, int]) -> v2.Transform:
        settings, turns = self.settings, self.settings.any_orientation
        if self.whole:
            return whole_view(settings.short_side, shape, any_orientation=turns)
        around = settings.object_crops
        return field_of_view(settings.crop_side, shape, any_orientation=turns, around_object=around)


def _endless(places: Sequence[int], rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(places).tolist()


def _in_turn(examples: Sequence[Example], rng: np.random.Generator) -> Iterator[Place]:
    """Draw examples by their places: only those that are looked at are made, each when it is looked at."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for place, label in enumerate(labels_of(examples)):
        by_class[label].append(place)
    orders = [_endless(by_class[label], rng) for label in sorted(by_class)]
    while orders:
        for turn in rng.permutation(len(orders)):
            yield examples, next(orders[turn])


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
