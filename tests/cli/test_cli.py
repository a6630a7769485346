"""The serving commands as a user types them: help, exit codes, one clear line for every mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import Cli, assert_refused
from pictures import encoded, picture

import alserve
from alserve import Predictor
from alserve.cli.facts import print_machine
from alserve.files import write_atomic
from alserve.runtime.packages import find_conflicts, fix_command


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for seed in range(3):
        write_atomic(tmp_path / "images" / f"{seed}.png", encoded(picture(40, 60, seed)))
    return tmp_path / "images"


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], predictor: Predictor) -> Cli:
    monkeypatch.setenv("ALSERVE_MODEL", str(predictor.engine.path))
    return Cli(monkeypatch, capsys)


@pytest.mark.parametrize(
    "command",
    [(), ("segment",), ("serve",), ("info",), ("doctor",), ("train",), ("demo",), ("experiment",), ("report",)],
)
def test_help(cli: Cli, command: tuple[str, ...]) -> None:
    code, out, _ = cli(*command, "--help")
    assert code == 0
    assert "Usage:" in out


def test_help_names_every_command(cli: Cli) -> None:
    _, out, _ = cli("--help")
    for command in ("demo", "train", "export", "evaluate", "segment", "serve", "info", "doctor"):
        assert f" {command} " in out


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"alserve {alserve.__version__}\n", "")


@pytest.mark.parametrize("words", [("no-such-command",), ("segment",), ("segment", "x", "--out"), ("info",)])
def test_wrong_usage_exits_with_2(cli: Cli, words: tuple[str, ...]) -> None:
    code, _, err = cli(*words)
    assert code == 2
    assert "Traceback" not in err


def test_segment(cli: Cli, images: Path) -> None:
    out = images.parent / "out"
    code, said, progress = cli("segment", images, "--out", out, "--threads", 2, "--batch-size", 2)
    assert code == 0
    assert said.startswith("3 images, ")
    assert str(out) in said
    assert "on cpu" in progress or "on cuda" in progress
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["0.png", "1.png", "2.png"]


def test_segment_with_a_bad_image_exits_with_1_and_names_it(cli: Cli, images: Path) -> None:
    write_atomic(images / "bad.jpg", b"hello")
    code, said, err = cli("segment", images, "--out", images.parent / "out")
    assert code == 1
    assert "4 images, 1 failed" in said
    assert "bad.jpg" in err


def test_segment_refuses(cli: Cli, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.onnx").write_text("hello")
    assert_refused(cli("segment", images, "--out", out, "--save", "mask,heat"), "'heat'", "cam, mask, overlay")
    assert_refused(cli("segment", images, "--out", out, "--device", "gpu"), "'gpu'")
    assert_refused(cli("segment", images, "--out", out, "--model", tmp_path / "no.onnx"), "no.onnx", "No such file")
    assert_refused(cli("segment", images, "--out", out, "--model", tmp_path / "text.onnx"), "text.onnx")
    assert_refused(cli("segment", tmp_path / "empty", "--out", out), "no images")
    assert_refused(cli("segment", tmp_path / "none", "--out", out), "none: no such file or folder")
    assert_refused(cli("segment", images, images, "--out", out), "would both be written")
    assert not out.exists()


def test_segment_twice_does_what_is_missing(cli: Cli, images: Path) -> None:
    out = images.parent / "out"
    command = ("segment", images, "--out", out, "--save", "mask")
    assert cli(*command)[0] == 0
    code, said, _ = cli(*command)
    assert code == 0
    assert "0 images (3 were done already)" in said
    assert_refused(cli("segment", images, "--out", out, "--save", "mask,cam"), "other options", "--overwrite")
    code, said, _ = cli(*command, "--overwrite")
    assert code == 0
    assert said.startswith("3 images, ")


def test_shards_and_their_merged_manifest(cli: Cli, images: Path) -> None:
    out = images.parent / "out"
    assert_refused(cli("segment", images, "--out", out, "--shard", "3/2"), "I/N")
    for shard in ("1/2", "2/2"):
        if shard == "2/2":
            assert_refused(cli("merge", out), "shard 2/2 is missing")
        assert cli("segment", images, "--out", out, "--save", "mask", "--shard", shard)[0] == 0
    code, said, _ = cli("merge", out)
    assert (code, said) == (0, f"3 images, in {out}/predictions.jsonl\n")
    code, said, _ = cli("segment", images, "--out", out, "--save", "mask")
    assert "0 images (3 were done already)" in said


def test_info(cli: Cli, predictor: Predictor) -> None:
    code, out, _ = cli("info", predictor.engine.path)
    facts = dict(line.split(": ", 1) for line in out.splitlines())
    assert code == 0
    assert facts["classes"] == ", ".join(predictor.spec.classes)
    assert facts["sha256"] == predictor.engine.sha256
    assert facts["encoder"] == predictor.spec.provenance.encoder


def test_info_of_what_is_no_model(cli: Cli, images: Path) -> None:
    assert_refused(cli("info", images / "0.png"), "0.png")


def test_doctor_tells_versions_and_devices(capsys: pytest.CaptureFixture[str]) -> None:
    code = print_machine()
    out = capsys.readouterr().out
    assert code == int("CONFLICT" in out)
    for word in ("python: ", f"alserve: {alserve.__version__}", "CPUExecutionProvider", "cores to use: ", "bentoml: "):
        assert word in out


def test_conflicting_packages_are_found_and_mended() -> None:
    assert find_conflicts(["numpy", "onnxruntime", "opencv-python"]) == []
    assert find_conflicts(["onnxruntime", "numpy", "onnxruntime-gpu"]) == [("onnxruntime-gpu", "onnxruntime")]
    assert find_conflicts(["opencv-python-headless", "opencv-python", "opencv-contrib-python"]) == [
        ("opencv-python", "opencv-python-headless", "opencv-contrib-python")
    ]
    assert fix_command(("onnxruntime-gpu", "onnxruntime")) == (
        "pip uninstall -y onnxruntime-gpu onnxruntime && pip install onnxruntime-gpu"
    )


def run_python(program: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


def test_help_loads_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    program = """
import sys
from alserve.cli import main
sys.argv = ["alserve", "--help"]
try:
    main()
except SystemExit:
    print("LOADED", [name for name in ("torch", "onnxruntime", "cv2", "numpy", "bentoml") if name in sys.modules])
"""
    assert run_python(program, tmp_path).splitlines()[-1] == "LOADED []"


def test_a_folder_run_never_imports_torch_or_training(images: Path) -> None:
    program = """
import sys
from alserve.cli import main
sys.argv = ["alserve", "segment", "images", "--out", "out"]
try:
    main()
except SystemExit as exit:
    print("EXIT", exit.code, [name for name in ("torch", "training") if name in sys.modules])
"""
    assert run_python(program, images.parent).splitlines()[-1] == "EXIT 0 []"
