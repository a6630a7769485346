"""The contract: what is written is read back; what does not fit is refused in one clear line."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from alserve import Predictor
from alserve.errors import ModelError
from alserve.modelfile import (
    FORMAT_VERSION,
    METADATA_KEY,
    ModelSpec,
    default_model,
    from_metadata,
    read_metadata,
    read_model,
    to_metadata,
    write_metadata,
)
from alserve.modelfile.protobuf import field


def changed(spec: ModelSpec, **fields: Any) -> dict[str, str]:
    """The metadata of a spec with some fields replaced, unchecked."""
    return {METADATA_KEY: spec.model_copy(update=fields).model_dump_json(warnings=False)}


def test_round_trip(predictor: Predictor) -> None:
    assert from_metadata(to_metadata(predictor.spec), "here") == predictor.spec


def test_classes_without_foreground_are_written_where_there_are_some(predictor: Predictor) -> None:
    """Readers of before 0.3.0, which refuse fields that they do not know, read the other files."""
    assert "empty_classes" not in to_metadata(predictor.spec)[METADATA_KEY]
    spec = predictor.spec.model_copy(update={"empty_classes": predictor.spec.classes[1:]})
    assert from_metadata(to_metadata(spec), "here").empty_classes == predictor.spec.classes[1:]


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


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '"text"', "{}", '{"format_version": "new"}', '{"format_version": 1e400}'),
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format_version": ' + "9" * 10_000 + "}",
        '{"format_version": NaN}',
        json.dumps({"format_version": 1, "classes": ["x" * 2_000_000]}),
    ],
)
def test_damaged_metadata(text: str) -> None:
    with pytest.raises(ModelError, match="here: the alserve metadata is damaged"):
        from_metadata({METADATA_KEY: text}, "here")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"classes": ("one",)}, "classes"),
        ({"classes": ("one", "one")}, "classes: .*'one' comes twice"),
        ({"classes": ("caf\u00e9", "cafe\u0301")}, "classes: .* comes twice"),
        ({"classes": ("one", "")}, "classes"),
        ({"classes": ("one", "two\nalserve: all is well")}, "classes.1: .*control characters"),
        ({"classes": ("one", "\x1b[2J")}, "classes"),
        ({"classes": ("one", "\ud800")}, "classes"),
        ({"classes": tuple(map(str, range(5000)))}, "classes"),
        ({"classes": ("one", "x" * 1000)}, "classes"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"short_side": 100}, "short_side"),
        ({"short_side": 0}, "short_side"),
        ({"short_side": 2**40}, "short_side"),
        ({"short_side": float("inf")}, "short_side"),
        ({"training_short_side": 10**30}, "training_short_side"),
        ({"cam_range": (float("nan"), 1.0)}, "cam_range"),
        ({"cam_range": (0.0, float("inf"))}, "cam_range"),
        ({"cam_range": (1.0, 0.0)}, "cam_range: .*above the high end"),
        ({"empty_classes": ("three",)}, "empty_classes: .*'three' is none of the classes"),
        ({"provenance": None}, "provenance"),
        ({"surprise\n": 1}, "surprise"),
    ],
)
def test_fields_that_do_not_fit_are_named(predictor: Predictor, fields: dict[str, Any], place: str) -> None:
    text = json.dumps(predictor.spec.model_dump(mode="json") | fields)
    with pytest.raises(ModelError, match=rf"here: .*does not fit \({place}") as caught:
        from_metadata({METADATA_KEY: text}, "here")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


LENGTH_BEYOND = b"\x3a\xff\xff\xff\xff\x0f"
"""A field that claims 4 GB."""


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 10**6,
        b"\x08" + b"\xff" * 10**6,
        b"\x08\x01" * 10**6,
        LENGTH_BEYOND,
        b"\x3a\x05\x2a\xff\xff\xff\x7f",
        field(14, b"\x0a\x07alserve\x12\x02\xff\xfe"),
        field(14, b"\x0a\xff"),
        b"\x0b",
    ],
)
def test_no_protobuf_holds_anybody_up(data: bytes) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"here: not an ONNX model, or cut short"):
        read_metadata(data, "here")
    assert time.monotonic() - start < 20


def test_many_small_fields_inside_are_no_model(predictor: Predictor) -> None:
    tensor = field(7, field(5, b"\x08\x01" * 600_000) * 2)
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_metadata(write_metadata(tensor, predictor.spec), "here")


def test_sealing_again_leaves_one_contract(predictor: Predictor) -> None:
    data = predictor.engine.path.read_bytes()
    other = predictor.spec.model_copy(update={"threshold": 0.125})
    again = write_metadata(write_metadata(data, other), predictor.spec)
    assert len(again) == len(data)
    assert read_metadata(again, "here").spec == predictor.spec
    assert len(read_metadata(again, "here").references) == len(predictor.engine.references)


def test_what_is_no_file_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        read_model(tmp_path)
    with pytest.raises(ModelError, match="no such name"):
        read_model(Path("a\0b"))
    with (tmp_path / "huge.onnx").open("wb") as file:
        file.truncate(2**31)  # takes no room
    with pytest.raises(ModelError, match="larger than 2 GB"):
        read_model(tmp_path / "huge.onnx")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ModelError, match="is a pipe"):
        read_model(tmp_path / "pipe.onnx")


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


def test_figures_that_came_later_are_written_where_they_are_known(predictor: Predictor) -> None:
    """alserve 0.2 refuses a field that it does not know."""
    made = predictor.spec.provenance
    plain = json.loads(to_metadata(predictor.spec)[METADATA_KEY])["provenance"]
    assert not {"test_foreground_dice", "test_found", "test_false_alarms"} & plain.keys()
    assert plain["test_dice"] == made.test_dice  # though it may be None
    known = {"test_foreground_dice": 0.5, "test_found": 0.9, "test_false_alarms": 0.0}
    spec = predictor.spec.model_copy(update={"provenance": made.model_copy(update=known)})
    assert from_metadata(to_metadata(spec), "here") == spec
    assert json.loads(to_metadata(spec)[METADATA_KEY])["provenance"] == plain | known
