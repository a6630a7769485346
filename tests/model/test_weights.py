"""Weights of an encoder from a file: read whole and without running code, or refused with one line."""

import hashlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from alserve.errors import DataError
from training.model.network import JointNet
from training.model.weights import MOST_HEADER, fingerprint, load_weights

NAME = "test_resnet"


def weights_of(name: str = NAME, seed: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(timm.create_model(name).state_dict())


def encoder(name: str = NAME, weights: Path | None = None) -> dict[str, Tensor]:
    """The weights of an encoder that starts from a file, by timm's names with every dot an underscore."""
    own = JointNet(2, name, pretrained=weights is not None, encoder_weights=weights).encoder.state_dict()
    return {key.removeprefix("model.").replace(".", "_"): value for key, value in own.items()}


@pytest.mark.parametrize("name", [NAME, "test_convnext", "test_efficientnet", "test_vit", "test_vit4"])
def test_the_encoder_starts_from_the_file_and_no_hub_is_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the recipe in the documentation writes it; the classifier in it is not read."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path, stored = tmp_path / "weights.safetensors", weights_of(name)
    save_file(stored, path)
    flat = {key.replace(".", "_"): value for key, value in stored.items()}
    found = encoder(name, path)
    assert len(found) > 20
    assert all(torch.equal(value, flat[key]) for key, value in found.items())
    assert not all(torch.equal(value, flat[key]) for key, value in encoder(name).items())


def test_a_file_replaces_an_installed_package_and_inputs_are_normalised_as_timm_says(tmp_path: Path) -> None:
    name, stored = "tf_efficientnet_lite0", weights_of("tf_efficientnet_lite0")
    save_file(stored, tmp_path / "weights")
    net = JointNet(2, name, encoder_weights=tmp_path / "weights")
    assert torch.equal(net.encoder.model.bn1.weight, stored["bn1.weight"])
    assert torch.equal(next(net.encoder.parameters()), stored["conv_stem.weight"])
    config = timm.get_pretrained_cfg(name)
    assert (net.mean.unique().tolist(), net.std.unique().tolist()) == ([255 * config.mean[0]], [255 * config.std[0]])


WRAPPED: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "plain": lambda weights: weights,
    "ordered": OrderedDict,
    "lightning": lambda weights: {
        "state_dict": {f"model.{key}": value for key, value in weights.items()},
        "epoch": 3,
        "optimizer_states": [{"lr": 0.1}],
    },
    "distillation": lambda weights: {
        "student": {},
        "teacher": {f"module.backbone.{key}": value for key, value in weights.items()},
    },
    "segmentation": lambda weights: {"model": {f"encoder.model.{key}": value for key, value in weights.items()}},
    "no head": lambda weights: {key: value for key, value in weights.items() if not key.startswith("fc")},
    "more heads": lambda weights: {**weights, "projector.0.weight": torch.zeros(2), "fc2.bias": torch.zeros(1)},
    "half precision": lambda weights: {
        key: value.half() if value.is_floating_point() else value for key, value in weights.items()
    },
}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize("old", [False, True])
def test_state_dictionaries_as_programs_save_them(how: str, old: bool, tmp_path: Path) -> None:  # noqa: FBT001
    path, stored = tmp_path / "weights.pth", weights_of()
    torch.save(WRAPPED[how](stored), path, _use_new_zipfile_serialization=not old)
    found = encoder(weights=path)
    for key in ("conv1.0.weight", "layer4.0.conv1.weight"):
        assert torch.allclose(found[key.replace(".", "_")], stored[key], atol=1e-3)


class Code:
    """What a pickle runs where it is not refused."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch was-run",))


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 4, 1)), buffer)
    return buffer.getvalue()


def inflating() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    return buffer.getvalue()


def with_first(value: Tensor) -> bytes:
    """Weights whose first convolution of the first stage is another."""
    return save({**weights_of(), "layer1.0.conv1.weight": value})


SHAPE = tuple(weights_of()["layer1.0.conv1.weight"].shape)

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "code": (lambda: saved(Code()), "contains code; only weights are read; convert it to safetensors"),
    "code, pickled": (lambda: pickle.dumps({"a": Code()}, protocol=2), "contains code"),
    "code, pickled anew": (lambda: pickle.dumps({"a": Code()}), "is damaged, or no file of weights"),
    "a whole network": (lambda: saved(timm.create_model(NAME)), "contains code"),
    "TorchScript": (scripted, "contains code"),
    "empty": (lambda: b"", "is damaged, or no file of weights"),
    "text": (lambda: b"<!DOCTYPE html><html>not found</html>", "is damaged, or no file of weights"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "is damaged, or no file of weights"),
    "cut": (lambda: save(weights_of())[:-100], "is damaged, or no file of weights"),
    "cut header": (lambda: save(weights_of())[:100], "is damaged, or no file of weights"),
    "cut, of PyTorch": (lambda: saved(weights_of())[:-5000], "is damaged, or no file of weights"),
    "cut early, of PyTorch": (lambda: saved(weights_of())[:500], "is damaged, or no file of weights"),
    "a large header": (
        lambda: (MOST_HEADER + 1).to_bytes(8, "little") + b"{" + b" " * MOST_HEADER,
        "is damaged, or no file of weights",
    ),
    "inflating": (inflating, "is damaged, or no file of weights"),
    "a list": (lambda: saved([torch.zeros(1)]), "holds no weights by their names"),
    "a tensor": (lambda: saved(torch.zeros(1)), "holds no weights by their names"),
    "no tensor": (lambda: saved({"epoch": 3}), "0 of the "),
    "two networks": (
        lambda: saved(
            {f"{place}.{key}": value for key, value in weights_of().items() for place in ("model", "module")}
        ),
        "holds weights of several networks; save the encoder's alone",
    ),
    "another network": (
        lambda: save(weights_of("test_convnext")),
        f"tensors of encoder '{NAME}' are there, and conv1.0.weight is not; see --encoder",
    ),
    "a smaller network": (
        lambda: save({key: value for key, value in weights_of().items() if "layer4" not in key}),
        "are there, and layer4.0.conv1.weight is not",
    ),
    "a larger network": (
        lambda: save({**weights_of(), "layer4.7.conv1.weight": torch.zeros(2)}),
        f"holds weights of a larger network than encoder '{NAME}', which has no layer4.7.conv1.weight",
    ),
    "another shape": (
        lambda: with_first(torch.zeros(1, 2)),
        f"layer1.0.conv1.weight is float32 [1, 2], and the encoder's float32 {list(SHAPE)}",
    ),
    "whole numbers": (
        lambda: with_first(torch.zeros(SHAPE, dtype=torch.int8)),
        f"layer1.0.conv1.weight is int8 {list(SHAPE)}, and the encoder's float32 {list(SHAPE)}",
    ),
    "NaN": (lambda: with_first(torch.full(SHAPE, float("nan"))), "layer1.0.conv1.weight holds NaN or infinity"),
    "infinity": (lambda: with_first(torch.full(SHAPE, float("inf"))), "layer1.0.conv1.weight holds NaN or infinity"),
    "beyond float32": (
        lambda: with_first(torch.full(SHAPE, 1e300, dtype=torch.float64)),
        "layer1.0.conv1.weight holds NaN or infinity",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_files_that_are_refused(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, words = REFUSED[what]
    path = tmp_path / "weights"
    path.write_bytes(make())
    with pytest.raises(DataError) as caught:
        JointNet(2, NAME, encoder_weights=path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "was-run").exists()


def test_no_byte_of_damage_is_more_than_one_line(tmp_path: Path) -> None:
    """Whatever byte of a small file is another: it is refused, or the weights have another value."""
    path, network = tmp_path / "weights", torch.nn.Conv2d(1, 1, 1)
    for whole in (save(network.state_dict()), saved(network.state_dict())):
        for place in range(0, len(whole), 1 + len(whole) // 400):
            for value in (0, 0x2E, 0xFF):
                path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
                try:
                    load_weights(network, path, NAME)
                except DataError as error:
                    assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("place", "words"), [("nowhere", "there is no such file"), (".", "is a folder"), ("a\0b", "cannot be read")]
)
def test_places_without_a_file(place: str, words: str, tmp_path: Path) -> None:
    for use in (fingerprint, lambda path: JointNet(2, NAME, encoder_weights=path)):
        with pytest.raises(DataError, match=words) as caught:
            use(tmp_path / place)
        assert "\n" not in str(caught.value)


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    assert fingerprint(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()
    assert fingerprint(None) is None
