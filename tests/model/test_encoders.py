"""Encoders: weights from the package, TensorFlow's padding, transformers at any size, and what is refused."""

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from drawn import pixels

from alserve.errors import DataError
from training.model.encoders import DEFAULT_ENCODER, PACKAGED_WEIGHTS, PlainTransformer
from training.model.network import JointNet


@pytest.mark.parametrize("name", PACKAGED_WEIGHTS)
def test_an_encoder_starts_from_the_packaged_weights(name: str) -> None:
    stored = torch.load(PACKAGED_WEIGHTS[name].get_model_file_path(), weights_only=True)
    wanted = [value for key, value in stored.items() if not key.endswith("num_batches_tracked")]
    encoder = JointNet(3, name).encoder.state_dict()
    found = [value for key, value in encoder.items() if not key.endswith("num_batches_tracked")]
    assert len(found) > 200
    for one, other in zip(found, wanted, strict=False):
        assert torch.equal(one, other)
    random = JointNet(3, name, pretrained=False).encoder.state_dict().values()
    assert not torch.equal(next(iter(random)), found[0])


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (224, 160)])
def test_fixed_padding_changes_nothing(shape: tuple[int, int]) -> None:
    net = JointNet(3).eval()
    original = smp.encoders.get_encoder(f"tu-{DEFAULT_ENCODER}", weights=None).eval()
    own = net.encoder.state_dict().values()
    original.load_state_dict(dict(zip(original.state_dict(), own, strict=True)))
    images = torch.randn(1, 3, *shape)
    with torch.inference_mode():
        for one, other in zip(net.encoder(images), original(images), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "convnextv2_atto"])
def test_other_encoders(name: str) -> None:
    net = JointNet(2, name, pretrained=False).eval()
    with torch.inference_mode():
        found = net(pixels(1, 3, 64, 96))
    assert net.encoder not in net.layers_after(16)
    assert found.cams.shape == (1, 2, 4, 6)
    assert found.mask.shape == (1, 64, 96)


@pytest.mark.parametrize(
    "name", ["test_vit", "vit_tiny_patch16_224", "vit_small_patch8_224", "eva02_tiny_patch14_224", "test_vit4"]
)
def test_transformers_see_any_size(name: str) -> None:
    net = JointNet(2, name, pretrained=False).eval()
    with torch.inference_mode():
        found = net(pixels(1, 3, 64, 96))
        maps = [tuple(features.shape[2:]) for features in net.encode(pixels(1, 3, 64, 96))]
    assert maps == [(64, 96), (4, 6), (4, 6), (4, 6), (2, 3)]
    assert found.cams.shape == (1, 2, 4, 6)
    assert found.mask.shape == (1, 64, 96)


def test_a_transformer_computes_what_timms_does_and_its_last_quarter_learns_the_classes() -> None:
    torch.manual_seed(0)
    net = JointNet(2, "vit_tiny_patch16_224", pretrained=False).eval()
    original = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64).eval()
    original.load_state_dict({**net.encoder.model.state_dict(), "pos_embed": original.pos_embed})
    net.encoder.model.pos_embed = original.pos_embed
    net.encoder.model.patch_embed.grid_size = original.patch_embed.grid_size
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        tokens = original.forward_features(images)[:, 1:]
        expected = tokens.mT.unflatten(2, (4, 4))
        torch.testing.assert_close(net.encoder(images)[-1], torch.nn.functional.avg_pool2d(expected, 2))
    names = {module: name for name, module in net.encoder.named_modules()}
    assert {names[layer].split(".")[2] for layer in net.layers_after(16)} == {"9", "10", "11"}


def test_a_transformer_that_pools_before_it_normalises_is_normalised() -> None:
    encoder = PlainTransformer("test_vit4", pretrained=False)
    assert isinstance(encoder.model.norm, torch.nn.Identity)
    assert [tuple(weight.shape) for weight in encoder.fc_norm.parameters()] == [(encoder.out_channels[-1],)]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("resnet99", "Unknown model"),
        ("swin_tiny_patch4_window7_224", "Input height"),
        ("beit_base_patch16_224", "timm builds it for images of one size only"),
    ],
)
def test_encoders_that_do_not_exist_or_do_not_fit(name: str, fault: str) -> None:
    with pytest.raises(DataError, match=rf"encoder '{name}': {fault}.* see timm.list_models\(\)") as caught:
        JointNet(2, name, pretrained=False)
    assert "\n" not in str(caught.value)
