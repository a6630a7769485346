"""A model checks itself where it is loaded: what computes something else is refused, in one line, everywhere."""

import base64
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import Cli, assert_refused
from onnx import TensorProto, helper, numpy_helper
from pictures import encoded, picture
from starlette.testclient import TestClient
from web import PNG

from alserve import Predictor, load
from alserve.errors import ModelError
from alserve.files import write_atomic
from alserve.modelfile import REFERENCES_KEY, write_metadata
from alserve.modelfile.contract import _parts
from alserve.modelfile.protobuf import Budget
from alserve.modelfile.references import MAX_IMAGES, Reference, read_references, write_references
from alserve.runtime.engine import Engine
from alserve.runtime.selfcheck import LIMITS, cache_folder, exceeded, limits_of, measure
from alserve.service.app import app
from training.export.to_onnx import choose_references

Change = Callable[[onnx.ModelProto], None]


def changed(predictor: Predictor, path: Path, change: Change) -> Path:
    """The model with another network, its hash made anew, its references kept."""
    model = onnx.load(predictor.engine.path)
    change(model)
    path.write_bytes(write_metadata(model.SerializeToString(), predictor.spec))
    return path


def scale_weights(factor: float, which: int = -3) -> Change:
    """Multiply the weights of one convolution."""

    def change(model: onnx.ModelProto) -> None:
        name = [node for node in model.graph.node if node.op_type == "Conv"][which].input[1]
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))

    return change


def double_mask(model: onnx.ModelProto) -> None:
    """Give a mask of twice the rows."""
    for node in model.graph.node:
        node.output[:] = ["half" if name == "mask" else name for name in node.output]
    model.graph.node.append(helper.make_node("Concat", ["half", "half"], ["mask"], axis=1))


@pytest.fixture
def spoiled(predictor: Predictor, tmp_path: Path) -> Path:
    return changed(predictor, tmp_path / "spoiled.onnx", scale_weights(3))


def test_a_sound_model_passes_and_is_remembered(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALSERVE_CACHE", str(tmp_path / "cache"))
    path = predictor.engine.path
    assert Engine(path, device="cpu").unchecked is None
    (kept,) = (tmp_path / "cache" / "self-check").iterdir()
    assert kept.stat().st_size == 0
    monkeypatch.setattr("alserve.runtime.engine.measure", lambda *_: pytest.fail("is compared again"))
    assert Engine(path, device="cpu").unchecked is None
    kept.unlink()
    kept.mkdir()  # no file: not what we left
    with pytest.raises(BaseException, match="is compared again"):
        Engine(path, device="cpu")


@pytest.mark.parametrize("place", ["file", "file/below", "\0"])
def test_a_cache_that_cannot_be_used_is_no_error(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("alserve.runtime.selfcheck.cache_folder", lambda: tmp_path / place)
    assert Engine(predictor.engine.path, device="cpu").unchecked is None


def test_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ALSERVE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "alserve"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (scale_weights(3), "mask IoU is"),
        (scale_weights(0.5, 12), "CAMs differ by"),
        (scale_weights(float("nan")), "not finite"),
        (double_mask, "outputs of shapes"),
    ],
)
def test_a_changed_network_is_refused(predictor: Predictor, tmp_path: Path, change: Change, words: str) -> None:
    path = changed(predictor, tmp_path / "changed.onnx", change)
    with pytest.raises(ModelError, match=words) as caught:
        load(path, device="cpu")
    assert str(caught.value).startswith(f"{path} on cpu: gives ")
    assert "\n" not in str(caught.value)
    assert Engine(path, device="cpu", self_check=False).unchecked


@pytest.mark.parametrize(("change", "words"), [(scale_weights(float("nan")), "not finite"), (double_mask, "of shapes")])
def test_without_references_shapes_and_numbers_are_checked_all_the_same(
    predictor: Predictor, tmp_path: Path, change: Change, words: str
) -> None:
    path = changed(predictor, tmp_path / "changed.onnx", change)
    path.write_bytes(write_metadata(path.read_bytes(), predictor.spec, ()))
    with pytest.raises(ModelError, match=words):
        load(path, device="cpu")


def test_a_network_that_never_ends_is_stopped(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = ["once" if name == "mask" else name for name in node.output]
        number = helper.make_tensor_value_info("number", TensorProto.INT64, [])
        true, on = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("true", "on"))
        given, kept = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("given", "kept"))
        nodes = [helper.make_node("Identity", ["true"], ["on"]), helper.make_node("Relu", ["given"], ["kept"])]
        body = helper.make_graph(nodes, "body", [number, true, given], [on, kept])
        start = numpy_helper.from_array(np.ones((), np.bool_), "start")
        times = numpy_helper.from_array(np.array(2**62), "times")
        model.graph.initializer.extend([start, times])
        model.graph.node.append(helper.make_node("Loop", ["times", "start", "once"], ["mask"], body=body))

    monkeypatch.setattr("alserve.runtime.engine.CHECK_SECONDS", 1)
    path = changed(predictor, tmp_path / "endless.onnx", endless)
    with pytest.raises(ModelError, match="gives no answer within 1 s"):
        load(path, device="cpu")


def test_the_commands_refuse_in_one_line(
    spoiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(monkeypatch, capsys)
    write_atomic(tmp_path / "images" / "a.png", encoded(picture(40, 60)))
    segment = ("segment", tmp_path / "images", "--model", spoiled, "--device", "cpu", "--out", tmp_path / "out")
    assert_refused(cli(*segment), "spoiled.onnx", "mask IoU is", "--no-self-check")
    assert not (tmp_path / "out").exists()
    assert_refused(cli("serve", "--model", spoiled), "ALSERVE_SELF_CHECK")
    assert_refused(cli("package", spoiled), "mask IoU is")
    code, _, err = cli(*segment, "--no-self-check")
    assert (code, "was not checked, as asked for" in err) == (0, True)


def test_info_shows_the_differences(
    predictor: Predictor, spoiled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(monkeypatch, capsys)
    code, out, _ = cli("info", spoiled)
    assert (code, "answers here: WRONG: " in out) == (0, True)
    assert "answers here: as trained: largest score difference" in cli("info", predictor.engine.path)[1]


def test_doctor_measures_what_answers_as_trained(predictor: Predictor, spoiled: Path) -> None:
    command = [sys.executable, "-m", "alserve", "doctor"]
    done = subprocess.run([*command, predictor.engine.path, spoiled], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert "images/s; as trained" in lines[f"{predictor.engine.path} on cpu (fp32)"]
    assert lines[f"{spoiled} on cpu (fp32)"].startswith("WRONG")
    assert lines["fastest"].startswith(str(predictor.engine.path))
    assert subprocess.run([*command, spoiled], capture_output=True, check=False).returncode == 1


def test_a_service_is_not_ready_and_its_log_says_why(
    spoiled: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ALSERVE_MODEL", str(spoiled))
    with TestClient(app) as client:
        assert client.post("/predict", content=PNG).status_code == 503
    assert "not ready: " in caplog.text
    assert "mask IoU is" in caplog.text
    monkeypatch.setenv("ALSERVE_SELF_CHECK", "no")
    with TestClient(app) as client:
        assert client.post("/predict", content=PNG).status_code == 200


def test_a_file_without_references_is_served_with_a_line(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.onnx"
    path.write_bytes(write_metadata(predictor.engine.path.read_bytes(), predictor.spec, ()))
    assert REFERENCES_KEY not in _parts(memoryview(path.read_bytes()), Budget())[1]
    write_atomic(tmp_path / "images" / "a.png", encoded(picture(40, 60)))
    code, _, err = Cli(monkeypatch, capsys)("segment", tmp_path / "images", "--model", path, "--out", tmp_path / "out")
    assert code == 0
    assert sum("carries no reference images" in line for line in err.splitlines()) == 1


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_is_compared_within_the_limits_of_what_it_computes_in(predictor: Predictor) -> None:
    engine = Engine(predictor.engine.path, device="openvino")
    assert engine.unchecked is None
    assert limits_of(engine.spec, "bf16") == LIMITS["bf16"]
    assert limits_of(engine.spec.model_copy(update={"precision": "int8"}), "bf16") == LIMITS["int8"]
    assert limits_of(engine.spec, "f32") == limits_of(engine.spec, "as exported") == LIMITS["fp32"]


def test_a_label_counts_where_the_network_was_sure(predictor: Predictor) -> None:
    spec, (first, *_) = predictor.spec, predictor.engine.references

    def with_scores(*scores: float) -> Reference:
        return first._replace(scores=np.array(scores, np.float32))

    found = int(predictor.engine.run(first.image[None]).scores[0].argmax())
    other = (0.9, 0.1) if found else (0.1, 0.9)
    close = (0.505, 0.495) if found else (0.495, 0.505)
    assert measure(predictor.engine.run, spec, [with_scores(*other)], "x").labels == 1
    assert measure(predictor.engine.run, spec, [with_scores(*close)], "x").labels == 0
    deviation = measure(predictor.engine.run, spec, [with_scores(*other)], "x")
    assert "1 of its labels changed" in str(exceeded(deviation, LIMITS["int8"]))
    assert "nan" in str(exceeded(deviation._replace(labels=0, score=0.0, cam=float("nan")), LIMITS["int8"]))


def test_references_are_small_and_come_back(predictor: Predictor) -> None:
    references = predictor.engine.references
    assert 1 < len(references) <= MAX_IMAGES
    text = write_references(references)
    assert len(text) < 150_000
    again = read_references(text, len(predictor.spec.classes), predictor.spec.cam_stride, "here")
    for one, other in zip(references, again, strict=True):
        for before, after in zip(one, other, strict=True):
            np.testing.assert_array_equal(before, after)


def test_the_hash_covers_references(predictor: Predictor, tmp_path: Path) -> None:
    data = predictor.engine.path.read_bytes()
    at = data.index(b'"images":[{"height":128') + 60
    path = tmp_path / "changed.onnx"
    path.write_bytes(data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at + 1 :])
    with pytest.raises(ModelError, match="does not match its hash"):
        load(path, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"height": 2**40},
        {"height": 33},
        {"width": 0},
        {"width": float("inf")},
        {"image": "no base64!"},
        {"image": "AAAA"},
        {"mask": None},
        {"scores": write_references},
        {"more": 1},
    ],
)
def test_references_that_do_not_fit_are_refused(predictor: Predictor, change: dict[str, object]) -> None:
    found = json.loads(write_references(predictor.engine.references))
    found["images"][0] |= change
    text = json.dumps(found, default=lambda _: found["images"][0]["cams"])
    with pytest.raises(ModelError, match="here: its reference images do not fit") as caught:
        read_references(text, len(predictor.spec.classes), predictor.spec.cam_stride, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"images": []}', "null", '{"images": [1e400]}', "9" * 10**7])
def test_references_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match="here: its reference images do not fit") as caught:
        read_references(text, 2, 32, "here")
    assert len(str(caught.value)) < 300


def test_a_piece_that_inflates_too_far_takes_no_memory(predictor: Predictor) -> None:
    found = json.loads(write_references(predictor.engine.references))
    found["images"][0]["image"] = base64.b64encode(zlib.compress(bytes(10**7), 9)).decode()
    with pytest.raises(ModelError, match="not of shape"):
        read_references(json.dumps(found), len(predictor.spec.classes), predictor.spec.cam_stride, "here")


def test_one_image_a_class_and_four_at_most(predictor: Predictor) -> None:
    def predict(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = predictor.engine.run(image[None])
        return outputs.scores[0], outputs.mask[0] > 0.5

    images = [picture(160, 192, seed) for seed in range(6)]
    chosen = choose_references(images, [0, 1, 2, 3, 4, 5], predict)
    assert 2 <= len(chosen) <= MAX_IMAGES
    assert {piece.shape for piece in chosen} == {(128, 128, 3)}
    assert len(choose_references([picture(64, 96, seed) for seed in range(3)], [0, 1, 1], predict)) == 2


def test_the_second_start_does_not_wait(predictor: Predictor, tmp_path: Path) -> None:
    """Two processes, one cache: the second one finds what the first left."""
    program = (
        "import sys, alserve.runtime.engine as engine; from pathlib import Path; calls = []; real = engine.measure; "
        "engine.measure = lambda *given: (calls.append(1), real(*given))[1]; "
        "engine.Engine(Path(sys.argv[1]), device='cpu'); print(len(calls))"
    )
    command = [sys.executable, "-c", program, str(predictor.engine.path)]
    environment = {**os.environ, "ALSERVE_CACHE": str(tmp_path)}
    said = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    assert [done.stdout.strip() for done in said] == ["1", "0"]
