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
    ("typed", "said"),
    [
        ("no-such-command", "no such command 'no-such-command'; see 'alserve --help'"),
        ("segment", "missing argument 'INPUT...'; see 'alserve segment --help'"),
        ("segment x", "missing option '--out'; see 'alserve segment --help'"),
        ("segment x --out", "option '--out' requires an argument; see"),
        (
            "segment x --out y --thread 2",
            "no such option: --thread (Possible options: --shard, --threads, --threshold); see 'alserve",
        ),
        ("segment x --out y --batch-size 0", "--batch-size 0: should be greater than or equal to 1; see"),
        ("segment x --out y --threads two", "--threads two: should be a valid integer"),
        ("evaluate x y --split tests", "--split tests: is not one of 'train', 'valid', 'test'; see 'alserve evaluate"),
        ("export x --out y --precision int4", "--precision: 'int4' is unknown; did you mean int8? there are fp32"),
        (
            "masks export x --out y --format voc",
            "--format: 'voc' is unknown; there are coco, coco-polygons, cvat, label-studio; see 'alserve masks",
        ),
        ("info", "missing argument 'MODEL'; see 'alserve info --help'"),
    ],
)
def test_wrong_usage_is_one_line_that_names_what_was_typed(cli: Cli, typed: str, said: str) -> None:
    result = cli(*typed.split())
    assert_refused(result, said)


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
    assert_refused(
        cli("segment", images, "--out", out, "--save", "mask,heat"), "'heat'", "cam, coco, cutout, label-studio, mask"
    )
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


LOADED = """
import sys
from alserve.cli import main
sys.argv = ["alserve", *sys.argv[1:]]
try:
    main()
except SystemExit as exit:
    print("EXIT", exit.code, [name for name in ("torch", "training") if name in sys.modules])
"""
"""Runs a command, and says what it has loaded."""


def run_and_tell(cwd: Path, *words: str) -> tuple[str, str]:
    """Return a command's exit code with what it has loaded of torch and training, and what it says of errors."""
    done = subprocess.run([sys.executable, "-c", LOADED, *words], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1], done.stderr


@pytest.mark.parametrize("words", [("train", "{data}"), ("experiment", "compare.yaml", "--data", "{data}")])
@pytest.mark.parametrize(
    ("data", "masks", "reason"),
    [("nowhere", ".", "no such folder or CSV file"), (".", "nowhere", "no such folder of masks")],
)
def test_a_path_where_nothing_is_needs_no_torch(
    tmp_path: Path, words: tuple[str, ...], data: str, masks: str, reason: str
) -> None:
    told, said = run_and_tell(tmp_path, *(word.format(data=data) for word in words), "--masks", masks, "--out", "run")
    assert told.startswith("EXIT 2 [")
    assert "torch" not in told
    assert said == f"alserve: nowhere: {reason}\n"


def test_a_folder_run_never_imports_torch_or_training(images: Path) -> None:
    told, _ = run_and_tell(images.parent, "segment", "images", "--out", "out")
    assert told == "EXIT 0 []"
