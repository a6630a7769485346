"""int8 files on CPUs that this machine is not: with AVX2 but no VNNI, and without AVX, by QEMU's user mode."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from alserve import Predictor
from alserve.modelfile import write_metadata
from alserve.runtime.selfcheck import LIMITS, Deviation, exceeded
from training.export.quantize import _Calibration, _quiet, eight_bits

QEMU = shutil.which("qemu-x86_64")

pytestmark = pytest.mark.skipif(
    QEMU is None or platform.machine() not in {"x86_64", "AMD64"},
    reason="needs qemu-x86_64 (Debian: apt-get install qemu-user) on an x86-64 machine",
)

PROBE = """
import json, sys
from pathlib import Path
from alserve.runtime.engine import Engine
for path in sys.argv[1:]:
    print(json.dumps(Engine(Path(path), device="cpu", threads=1, self_check=False).deviation()))
"""
"""Compares each file with its references. The check as such is not asked: /proc/cpuinfo shows the machine beneath."""


@pytest.fixture(scope="module")
def files(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The demo model as it is exported to int8, and with weights of all 8 bits, as it was before."""
    folder = tmp_path_factory.mktemp("int8")
    engine = predictor.engine
    images = [reference.image for reference in engine.references]
    spec = engine.spec.model_copy(update={"precision": "int8"})
    with _quiet():
        quantize_static(
            engine.path,
            folder / "raw.onnx",
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    models = {"seven.onnx": eight_bits(engine.path, images), "eight.onnx": onnx.load(folder / "raw.onnx")}
    for name, model in models.items():
        (folder / name).write_bytes(write_metadata(model.SerializeToString(), spec, engine.references))
    return [folder / name for name in models]


@pytest.mark.parametrize(("cpu", "saturates"), [("Haswell", True), ("Nehalem", False)])
def test_int8_gives_the_same_everywhere(files: list[Path], cpu: str, *, saturates: bool) -> None:
    here = deviations([], files)
    there = deviations([str(QEMU), "-cpu", cpu], files)
    assert exceeded(there[0], LIMITS["int8"]) is None
    assert there[0] == pytest.approx(here[0], abs=0.01)
    # Weights of 8 bits show that these are the instructions in question: their sums overflow there.
    assert (there[1] != pytest.approx(here[1], abs=0.01)) == saturates


def deviations(before: list[str], files: list[Path]) -> list[Deviation]:
    command = [*before, sys.executable, "-c", PROBE, *map(str, files)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("OPENBLAS_CORETYPE", None)  # names the machine beneath
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [Deviation(*json.loads(line)) for line in done.stdout.splitlines()]
