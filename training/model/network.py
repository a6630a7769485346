"""The joint network: one encoder, a CAM head that classifies (WILDCAT), and a decoder that segments."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from segmentation_models_pytorch.base import SegmentationHead
from torch import Tensor, nn
from torch.nn import functional

from alserve.geometry import STRIDE
from alserve.modelfile import CamStride
from alserve.pooling import ONE_IN
from training.model.cam_head import CamHead
from training.model.decoders import DEFAULT_DECODER, build_decoder
from training.model.encoders import DEFAULT_ENCODER, build_encoder


class JointOutput(NamedTuple):
    """The outputs for one batch."""

    logits: Tensor
    """[batch, classes], class scores before softmax."""
    cams: Tensor
    """[batch, classes, height / cam_stride, width / cam_stride], class activation maps."""
    mask: Tensor
    """[batch, height, width], foreground logits."""


class JointNet(nn.Module):
    """Encoder, CAM head and decoder.

    Args:
        classes: Number of classes.
        encoder: A timm encoder that returns feature maps, or a plain transformer, by its timm name.
        decoder: Decoder of a segmentation-models-pytorch architecture, by its name there, in lower case.
        pretrained: Start from ImageNet weights; without, from random ones.
        encoder_weights: File of the weights to start from in their place, see `training.model.weights`.
        mask_dropout: Dropout of whole channels before the mask head, 0 to 1.
        empty_classes: Classes without foreground, by their index.
        cam_stride: Pixels, a side, of a cell of the class activation maps: 16 or 32.

    Raises:
        DataError: There is no such encoder or decoder, they do not fit together, or the weights cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classes: int,
        encoder: str = DEFAULT_ENCODER,
        decoder: str = DEFAULT_DECODER,
        *,
        pretrained: bool = True,
        encoder_weights: Path | None = None,
        mask_dropout: float = 0.0,
        empty_classes: Sequence[int] = (),
        cam_stride: CamStride = 16,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.empty_classes = list(empty_classes)
        self.encoder, mean, std = build_encoder(encoder, pretrained=pretrained, weights=encoder_weights)
        channels: list[int] = self.encoder.out_channels
        self.cam_head = CamHead(channels[-2 if cam_stride < STRIDE else -1 :], classes, one_in=ONE_IN[cam_stride])
        self.decoder, self.decoder_inputs, mask_channels, self.mask_stride = build_decoder(
            decoder, self.encoder, encoder
        )
        self.dropout = nn.Dropout2d(mask_dropout)
        self.mask_head = SegmentationHead(mask_channels, 1, activation=None, kernel_size=1)
        self.register_buffer("mean", _in_pixels(mean), persistent=False)
        self.register_buffer("std", _in_pixels(std), persistent=False)

    def layers_after(self, stride: int) -> list[nn.Module]:
        """Return the encoder's layers that no feature map up to this stride depends on; all where there are none such.

        They can learn while the finer feature maps stay as they are. 16 stands for the last stage, 1 for all layers.
        """
        side = 2 * STRIDE
        *maps, _last = self.encoder.eval().requires_grad_()(torch.zeros(1, 3, side, side))
        finer = [each for each in maps if each.requires_grad and side // each.shape[-1] <= stride]
        if not finer:
            return [self.encoder]
        weights = list(self.encoder.parameters())
        reached = torch.stack([each.sum() for each in finer]).sum()
        gradients = torch.autograd.grad(reached, weights, allow_unused=True)
        unreached = {weight for weight, gradient in zip(weights, gradients, strict=True) if gradient is None}
        owns = {layer: set(layer.parameters(recurse=False)) for layer in self.encoder.modules()}
        return [layer for layer, own in owns.items() if own and own <= unreached] or [self.encoder]

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the encoder's feature maps, fine to coarse, of uint8 images [batch, 3, height, width], RGB."""
        features: list[Tensor] = self.encoder((images.float() - self.mean) / self.std)
        return features

    def classify(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits [batch, classes] and CAMs [batch, classes, h, w]."""
        logits, cams = self.cam_head(features)
        return logits, cams

    def segment(self, features: list[Tensor]) -> Tensor:
        """Return foreground logits [batch, height, width]."""
        decoded: Tensor = self.decoder(features[: self.decoder_inputs])
        if self.dropout.p:
            decoded = self.dropout(decoded)
        mask: Tensor = self.mask_head(decoded)
        if self.mask_stride > 1:
            mask = functional.interpolate(mask, scale_factor=self.mask_stride, mode="bilinear")
        return mask.squeeze(1)

    def presence(self, logits: Tensor) -> Tensor | float:
        """Return the probability that an image is of a class with foreground: [batch, 1, 1]; 1 where all classes have.

        A mask's probability times this is the probability of foreground whatever the class is.
        """
        if not self.empty_classes:
            return 1.0
        return 1 - logits.softmax(dim=1)[:, self.empty_classes].sum(dim=1)[:, None, None]

    def has_foreground(self, labels: Tensor) -> Tensor:
        """Return whether the class of each label, int64 of any shape, has foreground: bool of the same shape."""
        return ~torch.isin(labels, torch.tensor(self.empty_classes, device=labels.device))

    def forward(self, images: Tensor) -> JointOutput:
        """Run all three parts on uint8 images [batch, 3, height, width], sizes multiples of 32."""
        features = self.encode(images)
        return JointOutput(*self.classify(features), self.segment(features))


def cam_mask(cams: Tensor, logits: Tensor, size: Sequence[int]) -> Tensor:
    """Return the predicted class's CAM as a foreground probability.

    Args:
        cams: [batch, classes, h, w].
        logits: [batch, classes]; the predicted class is theirs, never the true one, which serving does not have.
        size: Wanted (height, width).

    Returns:
        [batch, height, width], each image's CAM scaled so that its lowest value is 0 and its highest 1.
    """
    predicted = functional.one_hot(logits.argmax(dim=1), cams.shape[1]).to(cams.dtype)
    cam = (cams * predicted[:, :, None, None]).sum(dim=1, keepdim=True)
    low, high = cam.amin(dim=(2, 3), keepdim=True), cam.amax(dim=(2, 3), keepdim=True)
    scaled = (cam - low) / (high - low + 1e-6)
    return functional.interpolate(scaled, size=tuple(size), mode="bilinear", align_corners=False).squeeze(1)


def _in_pixels(shares: tuple[float, ...]) -> Tensor:
    """Scale shares of the pixels' range to pixels: [1, 3, 1, 1]; one number, quicker in 8 bits, if all are equal."""
    values = torch.tensor(shares) * 255
    return values[0] if len(set(shares)) == 1 else values.view(1, 3, 1, 1)
