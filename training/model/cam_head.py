"""The CAM head: class maps, and a score for each class pooled from them (WILDCAT)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from alserve.pooling import ALPHA, ONE_IN


class CamHead(nn.Module):
    """WILDCAT (Durand et al., CVPR 2017): class maps, pooled over their highest and lowest places.

    s_c = mean of the top k+ activations + alpha * mean of the lowest k- activations of class map c. The class maps are
    those of the last feature map, as published; with a second one they are added, enlarged, to those of that finer map
    (FCN-16s, Long et al., CVPR 2015), so that small objects have a place of their own.

    Args:
        channels: Channels of the encoder's last feature maps that are read, fine to coarse; each is half the one before
            in size.
        classes: Number of classes.
        modalities: Maps per class, averaged to one.
        one_in: k+ and k- are the number of positions over this, rounded up.
        alpha: Weight of the lowest activations.
        dropout: Dropout of whole feature channels while training.
    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        *,
        modalities: int = 5,
        one_in: int = ONE_IN[16],
        alpha: float = ALPHA,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.one_in = one_in
        self.alpha = alpha
        self.dropout = nn.Dropout2d(dropout)
        *finer, last = (nn.Conv2d(width, classes * modalities, kernel_size=1) for width in channels)
        self.maps = last
        self.finer = nn.ModuleList(reversed(finer))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits [batch, classes] and CAMs [batch, classes, h, w], h and w being those of the finest map read.

        Args:
            features: The encoder's feature maps, fine to coarse: [batch, channels, height, width] each.
        """
        last, *others = reversed(features)
        maps = self.maps(self.dropout(last))
        for layer, finer in zip(self.finer, others, strict=False):
            enlarged = functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
            maps = enlarged + layer(self.dropout(finer))
        cams = maps.unflatten(1, (-1, self.modalities)).mean(dim=2)
        return self.pool(cams), cams

    def pool(self, cams: Tensor) -> Tensor:
        """Pool CAMs [batch, classes, h, w] to logits [batch, classes]."""
        activations = cams.flatten(2)
        k = (activations.shape[2] + self.one_in - 1) // self.one_in
        highest = activations.topk(k, dim=2).values.mean(dim=2)
        lowest = activations.topk(k, dim=2, largest=False).values.mean(dim=2)
        return highest + self.alpha * lowest
