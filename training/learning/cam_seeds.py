"""Seeds: pseudo-masks from class activation maps, where no image has a mask but some classes have no foreground.

Where the CAM of an image's class, less those of the classes without foreground, is high is foreground, where it is low
background, and between the two nothing is known (Kolesnikov and Lampert, Seed, expand and constrain, ECCV 2016). A
network that learns masks from seeds finds the edges that a CAM does not have.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from alserve.arrays import Float32, Grey, Image
from alserve.geometry import resize
from training.learning.pseudo import MIDDLE
from training.model.network import JointNet
from training.model.object_cams import heights, object_cams
from training.model.trainer import Trainer

SCALES = (1, 2)
"""Sizes at which an image is looked at, over the working size: small objects have more places in a larger one."""

FLIPS: tuple[tuple[int, ...], ...] = ((), (1,))
"""Axes along which it is flipped."""

HIGH, LOW = 0.8, 0.4
"""Shares of a CAM's height above its median, over which a pixel is foreground, and below which it is background."""

UNKNOWN = MIDDLE - 1
"""Grey level of a pixel of which nothing is known."""


def seeds(net: JointNet, images: Iterable[Image], labels: Sequence[int], trainer: Trainer) -> Iterator[Grey]:
    """Draw the seeds of images.

    Args:
        net: A network that knows the classes; some of them have no foreground.
        images: At the working size: uint8 [height, width, 3].
        labels: Their classes, which have.
        trainer: Classifies.

    Yields:
        uint8 [height, width], see `training.learning.pseudo`: 255, 0, or `UNKNOWN`.
    """
    looks = [(scale, axes) for scale in SCALES for axes in FLIPS]

    def views() -> Iterator[Image]:
        for image in images:
            for scale, axes in looks:
                larger = resize(image, (scale * image.shape[0], scale * image.shape[1]))
                yield np.flip(larger, axes).copy()

    found = trainer.classify(net, views())
    for label in labels:
        own = torch.tensor([label])
        cams = [
            object_cams(torch.from_numpy(maps)[None], own, net.empty_classes)[0].numpy()
            for _, maps in islice(found, len(looks))
        ]
        height, width = (trainer.settings.cam_stride * cells for cells in cams[0].shape)  # of the working size itself
        turned = (np.flip(cam, axes).copy() for (_, axes), cam in zip(looks, cams, strict=True))
        yield seed(np.mean([resize(cam, (height, width)) for cam in turned], axis=0))


def seed(cam: Float32) -> Grey:
    """Turn a CAM into a seed.

    Args:
        cam: float32 [height, width], without bounds; what lies above its median counts.

    Returns:
        uint8 [height, width]: 255, 0, or `UNKNOWN`; all 0 where no place is higher than another.
    """
    height = heights(torch.from_numpy(cam)[None])[0].numpy()
    levels = np.full(cam.shape, UNKNOWN, np.uint8)
    levels[height <= LOW] = 0
    levels[height > HIGH] = 255
    return levels
