"""The network: its outputs, and the normalisation of its inputs."""

import pytest
import torch
from drawn import pixels
from torch import Tensor

from training.model.network import JointNet


@pytest.fixture(scope="module")
def net() -> JointNet:
    torch.manual_seed(0)
    return JointNet(3).eval()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 160)])
def test_shapes(net: JointNet, height: int, width: int) -> None:
    with torch.inference_mode():
        found = net(pixels(2, 3, height, width))
    assert found.logits.shape == (2, 3)
    assert found.cams.shape == (2, 3, height // 16, width // 16)
    assert found.mask.shape == (2, height, width)


def test_inputs_are_normalised_as_the_weights_want_it(net: JointNet) -> None:
    seen: list[torch.Tensor] = []
    hook = net.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    net.encode(torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    hook.remove()
    expected = torch.tensor([-127 / 128, 0, 1]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    torch.testing.assert_close(seen[0], expected)


def test_a_class_without_foreground_silences_the_mask() -> None:
    net = JointNet(3, "resnet18", pretrained=False, empty_classes=[0, 2])
    logits = torch.tensor([[0.0, 0.0, 0.0], [9.0, -9.0, 0.0], [-9.0, 9.0, -9.0]])
    presence = net.presence(logits)
    assert isinstance(presence, Tensor)
    assert presence.shape == (3, 1, 1)
    torch.testing.assert_close(presence.flatten(), logits.softmax(dim=1)[:, 1])
    assert JointNet(3, "resnet18", pretrained=False).presence(logits) == 1
