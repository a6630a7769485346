"""The model that worker processes load: a copy of the one at the start, else the file, as long as it is the same."""

import tempfile
from functools import partial
from pathlib import Path

import pytest

from alserve.errors import ModelError
from alserve.modelfile import default_model, read_metadata, write_metadata
from alserve.runtime.engine import Engine
from alserve.service.model_copy import load_pinned, pin_model


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model file of one's own, named by the environment."""
    path = tmp_path / "own.onnx"
    path.write_bytes(default_model().read_bytes())
    monkeypatch.setenv("ALSERVE_MODEL", str(path))
    monkeypatch.setenv("ALSERVE_PINNED_SHA256", "")  # what the test sets is undone after it
    monkeypatch.setenv("ALSERVE_PINNED_MODEL", "")
    monkeypatch.setenv("ALSERVE_PINNED_NAME", "")
    return path


def change(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(write_metadata(data, read_metadata(data, "own").spec.model_copy(update={"threshold": 0.125})))


def loaded() -> Engine:
    return load_pinned(partial(Engine, device="cpu", threads=1))


def test_the_copy_is_loaded_and_keeps_the_name(model: Path) -> None:
    pin_model(Path.cwd())
    change(model)

    engine = loaded()

    assert engine.path.name == model.name
    assert engine.spec.threshold != 0.125


def test_without_the_copy_the_file_is_loaded_as_long_as_it_is_the_same(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(model / "no folder"))
    pin_model(Path.cwd())

    assert loaded().path == model
    change(model)
    with pytest.raises(ModelError, match="not the model that the service started with; restart"):
        loaded()


def test_a_model_that_was_not_there_is_not_picked_up_later(model: Path) -> None:
    data = model.read_bytes()
    model.unlink()
    pin_model(Path.cwd())
    model.write_bytes(data)

    with pytest.raises(ModelError, match="restart"):
        loaded()


def test_what_is_wrong_is_said_of_the_file_and_not_of_the_copy(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:1000])
    pin_model(Path.cwd())

    with pytest.raises(ModelError) as caught:
        loaded()
    assert str(caught.value) == f"{model}: not an ONNX model, or cut short; copy or export it again"
