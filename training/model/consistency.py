"""Consistency: a strong view of an image is to have the mask that a teacher finds in a weak one.

The teacher is the mean of the network's weights over the last steps (Tarvainen and Valpola, Mean teachers, NeurIPS
2017), the scheme FixMatch (Sohn et al., NeurIPS 2020) with CutMix (Yun et al., ICCV 2019).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from training.model.network import JointNet

CUT = (0.3, 0.7)
"""Sides of the piece that CutMix exchanges, over those of the crop."""


def mean_teacher(net: JointNet, momentum: float) -> AveragedModel:
    """Return a copy of the network that follows it: theta' <- a theta' + (1 - a) theta.

    a = min(1 - 1 / (t + 1), momentum) in step t, so that the first steps do not weigh more than others.

    Args:
        net: The network; the copy is never trained itself.
        momentum: 0 to 1.
    """

    def follow(means: Sequence[Tensor], nows: Sequence[Tensor], updates: Tensor | int) -> None:
        share = min(1 - 1 / (int(updates) + 1), momentum)  # a GPU is waited for here, once in a step
        for mean, now in zip(means, nows, strict=True):
            mean.copy_(torch.lerp(now, mean, share))  # what does not change stays as it is, to the bit

    teacher = AveragedModel(net, multi_avg_fn=follow)
    return teacher.eval().requires_grad_(requires_grad=False)


def open_under_cams(found: Tensor, least: Tensor, heights: Tensor, gate: float) -> Tensor:
    """Return a teacher's masks; where one has too little, without its background under a high class activation map.

    With few masks a teacher sees a part of an object, or none of it, and its background would teach to see no more. A
    CAM is coarse, and does not tell where edges are: that there may be more of an object is all that is taken from it,
    and only in images in which the teacher finds less than the smallest mask of their class has.

    Args:
        found: [batch, height, width], 0 to 1: the teacher's foreground probability.
        least: [batch], 0 to 1: least share of foreground in an image of the same class.
        heights: [batch, h, w], 0 to 1, see `training.model.object_cams.heights`.
        gate: Height of a CAM over which a pixel's background teaches nothing, 0 to 1.

    Returns:
        [batch, height, width]: the same, or one half where the CAM is high and the teacher sees background.
    """
    high = functional.interpolate(heights[:, None], size=found.shape[1:], mode="bilinear")[:, 0] > gate
    too_little = found.mean(dim=(1, 2)) < least
    return torch.where(high & too_little[:, None, None], found.clamp(min=0.5), found)


def told_by_class(found: Tensor, has_foreground: Tensor, certainty: float) -> Tensor:
    """Return a teacher's masks, corrected by what is known of the images from their classes.

    In an image of a class without foreground there is none. In one of another class there is some: where the teacher is
    certain of none, it misses the object, and its background would teach to miss it. Then it is certain of nothing.

    Args:
        found: [batch, height, width], 0 to 1: the teacher's foreground probability.
        has_foreground: bool [batch]: whether the image's class has foreground.
        certainty: Probability from which on the teacher is certain, 0.5 to 1.

    Returns:
        [batch, height, width]: the same, or 0 everywhere, or one half everywhere.
    """
    misses = has_foreground & (found.amax(dim=(1, 2)) < certainty)
    found = found * has_foreground[:, None, None]
    return torch.where(misses[:, None, None], 0.5, found)


def cut_mix(images: Tensor, masks: Tensor, probability: float) -> tuple[Tensor, Tensor, Tensor]:
    """Paste into some images a piece of the one before, and into their masks the same piece of its mask.

    Args:
        images: [batch, 3, height, width].
        masks: [batch, height, width].
        probability: Of an image to get a piece, 0 to 1.

    Returns:
        Images, masks, and bool [batch]: which images have a piece of another.
    """
    mixed = torch.rand(len(images)) < probability
    if len(images) < 2:  # noqa: PLR2004
        mixed[:] = False
    others_images, others_masks = images.roll(1, dims=0), masks.roll(1, dims=0)
    images, masks = images.clone(), masks.clone()
    for place in mixed.nonzero().flatten().tolist():
        rows, columns = (_piece(side) for side in masks.shape[1:])
        images[place, :, rows, columns] = others_images[place, :, rows, columns]
        masks[place, rows, columns] = others_masks[place, rows, columns]
    return images, masks, mixed.to(images.device)


def _piece(side: int) -> slice:
    length = int(side * float(torch.empty(()).uniform_(*CUT)))
    start = int(torch.randint(side - length + 1, ()))
    return slice(start, start + length)


def ramp_up(step: int, steps: int, share: float = 0.25) -> float:
    """Return the weight of what a teacher teaches that still learns itself: from 0 to 1 over a share of all steps."""
    return min(1.0, (step + 1) / max(1, round(share * steps)))
