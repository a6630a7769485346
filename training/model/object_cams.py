"""Where objects are, as the class activation maps tell it if some classes have no foreground."""

from collections.abc import Sequence

import torch
from torch import Tensor


def object_cams(cams: Tensor, labels: Tensor, empty_classes: Sequence[int]) -> Tensor:
    """Return the CAM of each image's class, less the mean of those of the classes without foreground.

    Args:
        cams: [batch, classes, h, w].
        labels: int64 [batch], the images' classes.
        empty_classes: Those without foreground, by their index; at least one.

    Returns:
        [batch, h, w], without bounds; without meaning for images of a class without foreground.
    """
    images = torch.arange(len(labels), device=cams.device)
    return cams[images, labels] - cams[:, list(empty_classes)].mean(dim=1)


def heights(maps: Tensor) -> Tensor:
    """Return how high each place of a map is above the map's median, over how high its highest place is.

    Args:
        maps: [batch, h, w].

    Returns:
        [batch, h, w], 0 to 1; 0 everywhere where no place is higher than another.
    """
    flat = maps.flatten(1)
    above = (flat - flat.quantile(0.5, dim=1, keepdim=True)).clamp(min=0)
    highest = above.amax(dim=1, keepdim=True)
    return (above / torch.where(highest > 0, highest, 1)).view_as(maps)
