"""The CAM head: class maps, and a score for each class pooled from them (WILDCAT)."""

from torch import Tensor, nn


class CamHead(nn.Module):
    """WILDCAT (Durand et al., CVPR 2017): class maps, pooled over their highest and lowest places.

    s_c = mean of the top k+ activations + alpha * mean of the lowest k- activations of class map c.

    Args:
        channels: Channels of the encoder's last feature map.
        classes: Number of classes.
        modalities: Maps per class, averaged to one.
        one_in: k+ and k- are the number of positions over this, rounded up.
        alpha: Weight of the lowest activations.
        dropout: Dropout of whole feature channels while training.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        modalities: int = 5,
        one_in: int = 10,
        alpha: float = 0.6,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.one_in = one_in
        self.alpha = alpha
        self.dropout = nn.Dropout2d(dropout)
        self.maps = nn.Conv2d(channels, classes * modalities, kernel_size=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features [batch, channels, h, w] to logits [batch, classes] and CAMs [batch, classes, h, w]."""
        maps = self.maps(self.dropout(features))
        cams = maps.unflatten(1, (-1, self.modalities)).mean(dim=2)
        return self.pool(cams), cams

    def pool(self, cams: Tensor) -> Tensor:
        """Pool CAMs [batch, classes, h, w] to logits [batch, classes]."""
        activations = cams.flatten(2)
        k = (activations.shape[2] + self.one_in - 1) // self.one_in
        highest = activations.topk(k, dim=2).values.mean(dim=2)
        lowest = activations.topk(k, dim=2, largest=False).values.mean(dim=2)
        return highest + self.alpha * lowest
