"""Decoders: those of segmentation-models-pytorch, and the pyramid that lets a plain transformer use them."""

from contextlib import suppress
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.decoders.deeplabv3.decoder import SeparableConv2d
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from alserve.errors import DataError
from alserve.geometry import STRIDE
from alserve.registry import suggest
from training.model.encoders import PlainTransformer

DEFAULT_DECODER = "separable-unet"
"""A U-Net of depthwise separable convolutions, as MobileNet has them (Howard et al., 2017): quick on a CPU."""

UNETS = ("unet", DEFAULT_DECODER)
"""U-Nets with channels of our own."""

UNET_CHANNELS = (128, 64, 32, 32)
"""Of their stages, coarse to fine: four end at half the image's size, which GlaS showed to be fine enough."""

DECODER_OPTIONS: dict[str, dict[str, Any]] = {"deeplabv3": {"encoder_depth": 4}, "deeplabv3plus": {"encoder_depth": 4}}
"""Arguments of architectures whose own defaults want an encoder that ends at stride 8 or 16."""

ONE_SIZE = frozenset({"pspnet"})
"""Architectures that an export fixes to one size of image."""


class Decoder(NamedTuple):
    """A decoder, and what fits to its two ends."""

    module: nn.Module
    inputs: int
    """Number of the encoder's feature maps that it reads, from the finest."""
    channels: int
    """Channels of its output."""
    stride: int
    """Pixels of the image, along each side, per pixel of its output."""


class FeaturePyramid(nn.Module):
    """Feature maps of strides 2 to 32 from a plain transformer's, with the strides and channels of a ResNet-18.

    Transposed convolutions make the finer maps, as in ViTDet (Li et al., ECCV 2022), and the finest is a convolution of
    the image, as in UNETR (Hatamizadeh et al., WACV 2022). So every decoder that fits to a ResNet-18 fits here.

    Args:
        width: Channels of the transformer.
    """

    like = "resnet18"
    out_channels = (3, 64, 64, 128, 256, 512)

    def __init__(self, width: int) -> None:
        super().__init__()
        image, half, quarter, eighth, sixteenth, last = self.out_channels
        self.levels = nn.ModuleList(
            [
                _block(nn.Conv2d(image, half, kernel_size=3, stride=2, padding=1, bias=False)),
                nn.Sequential(_doubled(width, eighth), _doubled(eighth, quarter)),
                _doubled(width, eighth),
                _block(nn.Conv2d(width, sixteenth, kernel_size=1, bias=False)),
                _block(nn.Conv2d(width, last, kernel_size=1, bias=False)),
            ]
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map a transformer's five features, see `PlainTransformer`, to six, fine to coarse: the image and 2 to 32."""
        image, *_ = features
        return [image, *(level(found) for level, found in zip(self.levels, features, strict=True))]


class PyramidDecoder(nn.Module):
    """A decoder behind a feature pyramid, which learns with it.

    Args:
        pyramid: Makes its inputs.
        decoder: Any decoder that fits to a ResNet-18.
        inputs: Number of maps that it reads, from the finest.
    """

    def __init__(self, pyramid: FeaturePyramid, decoder: nn.Module, inputs: int) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.decoder = decoder
        self.inputs = inputs

    def forward(self, features: list[Tensor]) -> Tensor:
        """Decode a transformer's features to [batch, channels, height / stride, width / stride]."""
        decoded: Tensor = self.decoder(self.pyramid(features)[: self.inputs])
        return decoded


def _block(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))


def _doubled(channels: int, fewer: int) -> nn.Sequential:
    return _block(nn.ConvTranspose2d(channels, fewer, kernel_size=2, stride=2, bias=False))


def build_decoder(name: str, encoder: Any, encoder_name: str) -> Decoder:  # noqa: ANN401  of a library without types
    """Build a decoder, with new weights, that fits to an encoder.

    Args:
        name: One of `UNETS`, or of a segmentation-models-pytorch architecture, in lower case.
        encoder: As `training.model.encoders` builds it.
        encoder_name: timm's name of it.

    Raises:
        DataError: There is no such decoder, or it does not fit; the message names those that do.
    """
    try:
        return _try_decoder(name, encoder, encoder_name)
    except KeyError:
        reason = "there is no such decoder"
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = f"does not work with encoder '{encoder_name}' ({str(error).splitlines()[0]})"
    fitting = []
    for other in (DEFAULT_DECODER, *smp.MODEL_ARCHITECTURES_MAPPING):
        with suppress(AssertionError, IndexError, RuntimeError, TypeError, ValueError):
            _try_decoder(other, encoder, encoder_name)
            fitting.append(other)
    raise DataError(f"decoder '{name[:40]}': {reason}; {suggest(name, fitting)}")


def _try_decoder(name: str, encoder: Any, encoder_name: str) -> Decoder:  # noqa: ANN401
    """Build a decoder, with new weights, and run it at the smallest size that a model file serves."""
    if name in ONE_SIZE:
        raise ValueError("its pooling can be exported for one size of image only")
    like, channels = encoder_name, list(encoder.out_channels)
    if plain := isinstance(encoder, PlainTransformer):
        like, channels = FeaturePyramid.like, list(FeaturePyramid.out_channels)
    if name in UNETS:
        inputs = len(channels)
        module: nn.Module = UnetDecoder(channels, UNET_CHANNELS, n_blocks=len(UNET_CHANNELS))
        if name == DEFAULT_DECODER:
            _separate_convolutions(module)
    else:
        options = DECODER_OPTIONS.get(name, {})
        network = smp.create_model(name, f"tu-{like}", encoder_weights=None, **options)
        inputs, module = len(network.encoder.out_channels), network.decoder
        _fix_adaptive_pooling(module)
    if plain:
        module = PyramidDecoder(FeaturePyramid(encoder.out_channels[-1]), module, inputs)
        inputs = len(encoder.out_channels)
    with torch.no_grad():
        features = encoder.eval()(torch.zeros(1, 3, STRIDE, 2 * STRIDE))
        _, width, height, _ = module.eval()(features[:inputs]).shape
    return Decoder(module.train(), inputs, width, STRIDE // height)


def _separate_convolutions(module: nn.Module) -> None:
    """Replace every 3 x 3 convolution by one of each channel, and one of 1 x 1 of all channels."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child.kernel_size == (3, 3):
                separable = SeparableConv2d(child.in_channels, child.out_channels, 3, padding=1, bias=False)
                setattr(parent, name, separable)


class GridPool(nn.Module):
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
                setattr(parent, name, GridPool(child.output_size))
