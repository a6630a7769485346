"""Libraries that run models: how a device is chosen among them, and one that is added from outside."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command import Cli
from onnx.reference import ReferenceEvaluator
from parts import add_part
from pictures import picture

import alserve
from alserve import Predictor
from alserve.arrays import Float32, UInt8
from alserve.cli.facts import print_machine
from alserve.errors import DeviceError
from alserve.folder.manifest import MANIFEST
from alserve.images.codec import encode_png
from alserve.runtime.device import choose_device, device_names
from alserve.runtime.libraries import RUNTIMES, Backend, Model
from alserve.runtime.libraries.onnx_runtime import why_no_cuda


class Toy:
    """ONNX's own evaluator, in plain NumPy."""

    precision = "as exported"
    version = "toy 1"

    def __init__(self, model: Model) -> None:
        self._evaluator = ReferenceEvaluator(str(model.path))
        self.inputs = tuple(self._evaluator.input_names)
        self.outputs = tuple(self._evaluator.output_names)
        self.calls: list[int] = []

    def run(self, images: UInt8, deadline: float | None = None) -> Sequence[Float32]:
        del deadline
        self.calls.append(len(images))
        found: Sequence[Float32] = self._evaluator.run(None, {self.inputs[0]: images})
        return found


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[Toy]:
    """The device "toy"; the list gets what is opened on it."""
    opened: list[Toy] = []

    def open_toy(model: Model) -> Toy:
        opened.append(Toy(model))
        return opened[-1]

    add_part(monkeypatch, RUNTIMES, "toy", Backend("NumPy", open_toy, batch_size=2))
    return opened


def test_a_library_from_outside_runs_a_model(predictor: Predictor, toy: list[Toy]) -> None:
    loaded = alserve.load(predictor.engine.path, device="toy")
    assert (loaded.engine.device, loaded.engine.device_reason, loaded.engine.batch_size) == ("toy", "asked for", 2)
    assert loaded.engine.unchecked is None  # its answers were compared with those of the trained network
    image = picture(64, 96)
    found, expected = loaded.predict(image), predictor.predict(image)
    assert found.label == expected.label
    np.testing.assert_allclose(found.probability(), expected.probability(), atol=1e-3)
    assert toy[0].calls[-1] == 1


def test_a_library_from_outside_serves_the_commands(
    predictor: Predictor, toy: list[Toy], cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(picture(40, 40)))
    words = ("--model", predictor.engine.path, "--device", "toy", "--out", tmp_path / "out", "--save", "mask")
    code, _, err = cli("segment", tmp_path / "a.png", *words)
    assert (code, "on toy (asked for)" in err, len(toy)) == (0, True, 1)
    assert (tmp_path / "out" / MANIFEST).exists()
    print_machine()
    assert "device toy: usable" in capsys.readouterr().out


def test_what_a_user_can_ask_for() -> None:
    assert device_names() == ["auto", "cpu", "cuda", "cuda:N", "openvino"]


@pytest.mark.parametrize("device", ["gpu", "", "cpu:1", "cpu:", "cuda:x", "cuda:-1", "cuda:", "auto:0", "CPU"])
def test_an_unknown_device_names_the_known_ones(device: str) -> None:
    with pytest.raises(DeviceError, match=r"unknown device .*there are auto, cpu, cuda, cuda:N, openvino"):
        choose_device(device)


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(DeviceError, match=r"unknown device 'openvin'; did you mean openvino\?"):
        choose_device("openvin")


def test_auto_is_the_preferred_one_without_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_model(_: Model) -> Toy:
        raise DeviceError("it is only a toy")

    before = choose_device("auto")
    assert before.name == ("cuda" if why_no_cuda() is None else "cpu")
    add_part(monkeypatch, RUNTIMES, "worn", Backend("", no_model, obstacle=lambda: "it is worn out", preference=9))
    add_part(monkeypatch, RUNTIMES, "asked", Backend("", no_model))
    assert choose_device("auto").name == before.name
    assert choose_device("auto").reason.startswith("it is worn out")
    with pytest.raises(DeviceError, match="worn was asked for, but cannot be used: it is worn out"):
        choose_device("worn")
    add_part(monkeypatch, RUNTIMES, "best", Backend("", no_model, numbered=True, preference=8))
    assert str(choose_device("auto")) == "best:0"
    assert str(choose_device("best:3")) == "best:3"


def test_auto_passes_over_what_does_not_open(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_model(_: Model) -> Toy:
        raise DeviceError("it is only a toy")

    expected = choose_device("auto")
    add_part(monkeypatch, RUNTIMES, "toy", Backend("", no_model, preference=9))
    engine = alserve.load(predictor.engine.path).engine
    assert engine.device == str(expected)
    assert engine.device_reason.startswith("it is only a toy")
    with pytest.raises(DeviceError, match="it is only a toy"):
        alserve.load(predictor.engine.path, device="toy")
