"""The contract: what is written is read back; what does not fit is refused in one clear line."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from alserve import Predictor
from alserve.errors import ModelError
from alserve.modelfile import FORMAT_VERSION, METADATA_KEY, ModelSpec, default_model, from_metadata, to_metadata


def changed(spec: ModelSpec, **fields: Any) -> dict[str, str]:
    """The metadata of a spec with some fields replaced, unchecked."""
    return {METADATA_KEY: spec.model_copy(update=fields).model_dump_json(warnings=False)}


def test_round_trip(predictor: Predictor) -> None:
    assert from_metadata(to_metadata(predictor.spec), "here") == predictor.spec


def test_a_spec_cannot_be_changed(predictor: Predictor) -> None:
    with pytest.raises(ValidationError):
        predictor.spec.threshold = 0.1  # type: ignore[misc]


def test_no_metadata() -> None:
    with pytest.raises(ModelError, match=r"here: an ONNX file, but not an alserve model.*alserve export"):
        from_metadata({"other": "x"}, "here")


def test_newer_format_says_how_to_upgrade(predictor: Predictor) -> None:
    newer = changed(predictor.spec, format_version=FORMAT_VERSION + 1)
    with pytest.raises(ModelError, match=r"here: model format [0-9]+ is newer .*pip install --upgrade alserve"):
        from_metadata(newer, "here")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "{}", '{"format_version": "new"}'])
def test_damaged_metadata(text: str) -> None:
    with pytest.raises(ModelError, match="here: the alserve metadata is damaged"):
        from_metadata({METADATA_KEY: text}, "here")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"classes": ("one",)}, "classes"),
        ({"threshold": 1.5}, "threshold"),
        ({"short_side": 100}, "short_side"),
        ({"short_side": 0}, "short_side"),
        ({"provenance": None}, "provenance"),
    ],
)
def test_fields_that_do_not_fit_are_named(predictor: Predictor, fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ModelError, match=rf"here: .*does not fit \({place}"):
        from_metadata(changed(predictor.spec, **fields), "here")


def test_default_model_prefers_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALSERVE_MODEL", "elsewhere.onnx")
    assert default_model() == Path("elsewhere.onnx")


def test_default_model_takes_the_one_in_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALSERVE_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_model().name == "demo.onnx"  # the one that comes with the package
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.onnx").touch()
    assert default_model() == Path("models/mine.onnx")


def test_default_model_does_not_choose_between_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALSERVE_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("b.onnx", "a.onnx"):
        (tmp_path / "models" / name).touch()
    with pytest.raises(ModelError, match=r"several models \(a.onnx, b.onnx\)"):
        default_model()
