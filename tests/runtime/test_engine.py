"""Loading and running a model file: what is no model is refused, and the device is the one that was asked for."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pictures import picture

from alserve import Predictor, load
from alserve.errors import DeviceError, ModelError
from alserve.modelfile import FORMAT_VERSION, ModelSpec, read_metadata, write_metadata
from alserve.runtime.device import available_cores, choose_device
from alserve.runtime.engine import Engine
from training.data.tissue import CLASSES, draw_tissue

NO_GPU = not Path("/proc/driver/nvidia/version").exists()


def write_other_model(path: Path, spec: ModelSpec | None) -> Path:
    """A valid ONNX file that computes something else than a model of ours."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    data = model.SerializeToString()
    path.write_bytes(data if spec is None else write_metadata(data, spec))
    return path


def test_outputs_have_the_promised_shapes_and_ranges(predictor: Predictor) -> None:
    batch = np.stack([picture(64, 96, seed) for seed in range(2)])
    scores, cams, mask = predictor.engine.run(batch)
    classes = len(predictor.spec.classes)
    assert scores.shape == (2, classes)
    assert cams.shape == (2, classes, *(side // predictor.spec.cam_stride for side in (64, 96)))
    assert mask.shape == (2, 64, 96)
    assert {output.dtype for output in (scores, cams, mask)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_sha256_is_that_of_the_file(predictor: Predictor) -> None:
    engine = predictor.engine
    assert engine.sha256 == hashlib.sha256(engine.path.read_bytes()).hexdigest()


def test_many_threads_get_the_same_answers(predictor: Predictor) -> None:
    batches = [picture(64, 64, seed)[None] for seed in range(12)]
    alone = [predictor.engine.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(predictor.engine.run, batches))
    for one, other in zip(alone, together, strict=True):
        for expected, found in zip(one, other, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_batch_that_is_not_full_is_filled_up_unseen(predictor: Predictor) -> None:
    engine = Engine(predictor.engine.path, device="cpu", threads=1)
    engine.batch_size = 4  # as on a GPU
    for count in (1, 3, 4, 5):
        batch = np.stack([picture(64, 64, seed) for seed in range(count)])
        for expected, found in zip(predictor.engine.run(batch), engine.run(batch), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: the model cannot be read: No such file"):
        Engine(tmp_path / "none.onnx")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="folder"):
        Engine(tmp_path)


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(1000)])
def test_garbage(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"garbage\.onnx") as caught:
        Engine(path, device="cpu")
    assert "\n" not in str(caught.value)


def test_model_cut_short(tmp_path: Path, predictor: Predictor) -> None:
    path = tmp_path / "short.onnx"
    path.write_bytes(predictor.engine.path.read_bytes()[:-5000])
    with pytest.raises(ModelError, match=r"short\.onnx"):
        Engine(path, device="cpu")


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1), st.integers(0, 7))
def test_one_flipped_bit_is_noticed(predictor: Predictor, place: float, bit: int) -> None:
    data = bytearray(predictor.engine.path.read_bytes())
    data[round(place * (len(data) - 1))] ^= 1 << bit
    with pytest.raises(ModelError, match=r"m\.onnx: "):
        read_metadata(bytes(data), "m.onnx")


def test_weights_in_another_file_are_refused(tmp_path: Path, predictor: Predictor) -> None:
    model = onnx.load(predictor.engine.path)
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, size_threshold=1024)
    path = tmp_path / "alone.onnx"
    path.write_bytes(write_metadata((tmp_path / "split.onnx").read_bytes(), predictor.spec))
    with pytest.raises(ModelError, match=r"alone\.onnx: has weights in another file") as caught:
        Engine(path, device="cpu")
    assert "\n" not in str(caught.value)


def test_weights_in_another_file_are_refused_wherever_they_hide(predictor: Predictor) -> None:
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="/etc/hostname")
    constant = helper.make_node("Constant", [], ["c"], value=outside)
    body = helper.make_graph([constant], "body", [], [])
    for node in (constant, helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)):
        model = helper.make_model(helper.make_graph([node], "g", [], []))
        with pytest.raises(ModelError, match="has weights in another file"):
            read_metadata(write_metadata(model.SerializeToString(), predictor.spec), "m.onnx")


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_gives_what_onnx_runtime_gives(predictor: Predictor, tmp_path: Path) -> None:
    engine = Engine(predictor.engine.path, device="openvino", threads=1)
    assert engine.device == "openvino"
    drawn = [draw_tissue(np.random.default_rng(seed), CLASSES[seed % 2], (192, 256))[0] for seed in range(8)]
    batches = [image[None] for image in drawn]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(engine.run, batches))
    for batch, outputs in zip(batches, found, strict=True):
        expected = predictor.engine.run(batch)
        np.testing.assert_allclose(outputs.scores, expected.scores, atol=0.05)  # bfloat16 has 8 bits
        assert np.abs(outputs.mask - expected.mask).mean() < 0.02
    path = tmp_path / "other.onnx"
    with pytest.raises(ModelError, match="takes x and gives y"):
        Engine(write_other_model(path, predictor.spec), device="openvino")


def test_openvino_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alserve.runtime.libraries.openvino.find_spec", lambda _: None)
    with pytest.raises(DeviceError, match=r"pip install 'alserve\[openvino\]'"):
        choose_device("openvino")


def test_onnx_file_without_our_metadata(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not an alserve model"):
        Engine(write_other_model(tmp_path / "other.onnx", None), device="cpu")


def test_our_metadata_on_another_network(tmp_path: Path, predictor: Predictor) -> None:
    path = write_other_model(tmp_path / "other.onnx", predictor.spec)
    with pytest.raises(ModelError, match="takes x and gives y"):
        Engine(path, device="cpu")


def test_newer_format(tmp_path: Path, predictor: Predictor) -> None:
    newer = predictor.spec.model_copy(update={"format_version": FORMAT_VERSION + 1})
    with pytest.raises(ModelError, match="newer"):
        Engine(write_other_model(tmp_path / "newer.onnx", newer), device="cpu")


def test_cpu_is_cpu(predictor: Predictor) -> None:
    assert str(choose_device("cpu")) == "cpu"
    assert predictor.engine.device == "cpu"


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_auto_without_gpu_is_cpu(predictor: Predictor) -> None:
    engine = load(predictor.engine.path).engine
    assert engine.device == "cpu"
    assert "no NVIDIA driver" in engine.device_reason


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_gpu_is_refused(predictor: Predictor, device: str) -> None:
    with pytest.raises(DeviceError, match=r"cuda was asked for, but cannot be used: no NVIDIA driver") as caught:
        load(predictor.engine.path, device=device)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(NO_GPU, reason="no GPU")
def test_cuda_gives_what_the_cpu_gives(predictor: Predictor) -> None:
    engine = Engine(predictor.engine.path, device="cuda")
    assert engine.device == "cuda:0"
    for expected, found in zip(predictor.engine.run(picture()[None]), engine.run(picture()[None]), strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-2)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_cores_follow_the_affinity() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from alserve.runtime.device import available_cores; print(available_cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
