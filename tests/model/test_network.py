"""The network: WILDCAT with both terms, weights from the package, padding that equals TensorFlow's."""

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given
from hypothesis import strategies as st

from alserve.errors import DataError
from training.model.network import DEFAULT_ENCODER, PACKAGED_WEIGHTS, CamHead, JointNet, _GridPool


@pytest.fixture(scope="module")
def net() -> JointNet:
    torch.manual_seed(0)
    return JointNet(3).eval()


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from([0.0, 0.6, 1.0]), st.integers(0, 99))
def test_wildcat_pools_the_highest_and_the_lowest_places(height: int, width: int, alpha: float, seed: int) -> None:
    cams = np.random.default_rng(seed).normal(size=(2, 3, height, width))
    k = -(-height * width // 10)
    ordered = np.sort(cams.reshape(2, 3, -1))
    expected = ordered[..., -k:].mean(axis=-1) + alpha * ordered[..., :k].mean(axis=-1)
    pooled = CamHead(4, 3, alpha=alpha).pool(torch.from_numpy(cams))
    np.testing.assert_allclose(pooled.numpy(), expected, atol=1e-12)


def test_cams_are_the_mean_over_modalities() -> None:
    head = CamHead(4, 3, modalities=5).eval()
    features = torch.randn(2, 4, 6, 7)
    logits, cams = head(features)
    maps = head.maps(features).detach().numpy().reshape(2, 3, 5, 6, 7)
    np.testing.assert_allclose(cams.detach().numpy(), maps.mean(axis=2), atol=1e-6)
    torch.testing.assert_close(logits, head.pool(cams))


def test_dropout_is_on_while_training_only() -> None:
    head, features = CamHead(64, 2), torch.randn(1, 64, 4, 4)
    assert not torch.equal(head.train()(features)[1], head(features)[1])
    assert torch.equal(head.eval()(features)[1], head(features)[1])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 160)])
def test_shapes(net: JointNet, height: int, width: int) -> None:
    with torch.inference_mode():
        found = net(pixels(2, 3, height, width))
    assert found.logits.shape == (2, 3)
    assert found.cams.shape == (2, 3, height // 32, width // 32)
    assert found.mask.shape == (2, height, width)


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


def test_inputs_are_normalised_as_the_weights_want_it(net: JointNet) -> None:
    seen: list[torch.Tensor] = []
    hook = net.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    net.encode(torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    hook.remove()
    expected = torch.tensor([-127 / 128, 0, 1]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (224, 160)])
def test_fixed_padding_changes_nothing(net: JointNet, shape: tuple[int, int]) -> None:
    original = smp.encoders.get_encoder(f"tu-{DEFAULT_ENCODER}", weights=None).eval()
    own = net.encoder.state_dict().values()
    original.load_state_dict(dict(zip(original.state_dict(), own, strict=True)))
    images = torch.randn(1, 3, *shape)
    with torch.inference_mode():
        for one, other in zip(net.encoder(images), original(images), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_other_encoders(name: str) -> None:
    net = JointNet(2, name, pretrained=False).eval()
    with torch.inference_mode():
        found = net(pixels(1, 3, 64, 96))
    assert [layer for layer in net.last_stage() if layer is net.encoder] == []
    assert found.cams.shape == (1, 2, 2, 3)
    assert found.mask.shape == (1, 64, 96)


@pytest.mark.parametrize("name", ["resnet99", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_encoders_that_do_not_exist_or_do_not_fit(name: str) -> None:
    with pytest.raises(DataError, match=rf"encoder '{name}': .* see timm.list_models\(\)") as caught:
        JointNet(2, name, pretrained=False)
    assert "\n" not in str(caught.value)


def fitting(decoder: str) -> JointNet:
    torch.manual_seed(0)
    return JointNet(2, "mobilenetv3_small_050", decoder, pretrained=False)


@pytest.mark.parametrize("decoder", sorted(set(smp.MODEL_ARCHITECTURES_MAPPING) - {"pspnet", "pan", "dpt"}))
def test_decoders_end_at_the_size_of_the_image_and_learn(decoder: str) -> None:
    net = fitting(decoder)
    for height, width in ((32, 32), (64, 160)):
        mask = net.train()(pixels(2, 3, height, width)).mask
        assert mask.shape == (2, height, width)
    mask.mean().backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in net.decoder.parameters())
    assert net.eval()(pixels(1, 3, 32, 64)).mask.shape == (1, 32, 64)


@pytest.mark.parametrize(
    ("decoder", "fault"),
    [
        ("unett", "there is no such decoder; did you mean unet? there are unet, unetplusplus, "),
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
    assert {"unet", "fpn", "deeplabv3plus", "upernet"} <= set(listed)
    assert not {"pan", "pspnet", "dpt"} & set(listed)
    assert "\n" not in said


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_pooling_to_a_grid_is_adaptive_pooling(height: int, width: int, size: int) -> None:
    maps = torch.randn(1, 2, height, width)
    torch.testing.assert_close(_GridPool(size)(maps), torch.nn.AdaptiveAvgPool2d(size)(maps))
