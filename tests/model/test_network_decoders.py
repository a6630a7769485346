"""Decoders: any that fits to the encoder, behind a pyramid where that is a transformer; pooling for any size."""

import pytest
import segmentation_models_pytorch as smp
import torch
from drawn import pixels
from hypothesis import given
from hypothesis import strategies as st

from alserve.errors import DataError
from training.model.decoders import UNETS, GridPool
from training.model.network import JointNet


def fitting(decoder: str, encoder: str = "mobilenetv3_small_050") -> JointNet:
    torch.manual_seed(0)
    return JointNet(2, encoder, decoder, pretrained=False)


@pytest.mark.parametrize("decoder", sorted({*UNETS, *smp.MODEL_ARCHITECTURES_MAPPING} - {"pspnet", "pan", "dpt"}))
def test_decoders_end_at_the_size_of_the_image_and_learn(decoder: str) -> None:
    net = fitting(decoder)
    for height, width in ((32, 32), (64, 160)):
        mask = net.train()(pixels(2, 3, height, width)).mask
        assert mask.shape == (2, height, width)
    mask.mean().backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in net.decoder.parameters())
    assert net.eval()(pixels(1, 3, 32, 64)).mask.shape == (1, 32, 64)


@pytest.mark.parametrize("decoder", ["separable-unet", "deeplabv3plus", "upernet"])
def test_decoders_behind_the_pyramid_of_a_transformer(decoder: str) -> None:
    net = fitting(decoder, "test_vit")
    mask = net.train()(pixels(2, 3, 64, 96)).mask
    assert mask.shape == (2, 64, 96)
    mask.mean().backward()
    learned = {name.split(".")[0] for name, weight in net.decoder.named_parameters() if weight.grad is not None}
    assert learned == {"pyramid", "decoder"}


@pytest.mark.parametrize(
    ("decoder", "fault"),
    [
        ("unett", "there is no such decoder; did you mean unet? there are separable-unet, unet, unetplusplus, "),
        ("pan", "does not work with encoder 'mobilenetv3_small_050'"),
        ("pspnet", "its pooling can be exported for one size of image only"),
        ("dpt", "does not work with encoder 'mobilenetv3_small_050'"),
    ],
)
def test_decoders_that_do_not_exist_or_do_not_fit(decoder: str, fault: str) -> None:
    with pytest.raises(DataError) as caught:
        fitting(decoder)
    said = str(caught.value)
    assert said.startswith(f"decoder '{decoder}': ")
    assert fault in said
    listed = said.rpartition("there are ")[2].split(", ")
    assert {"separable-unet", "unet", "fpn", "deeplabv3plus", "upernet"} <= set(listed)
    assert not {"pan", "pspnet", "dpt"} & set(listed)
    assert "\n" not in said


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_pooling_to_a_grid_is_adaptive_pooling(height: int, width: int, size: int) -> None:
    maps = torch.randn(1, 2, height, width)
    torch.testing.assert_close(GridPool(size)(maps), torch.nn.AdaptiveAvgPool2d(size)(maps))
