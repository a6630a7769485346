"""The training commands as a user types them: the whole path once, and one clear line for every mistake."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from command import Cli, assert_refused
from drawn import settings
from pictures import encoded, picture
from safetensors.torch import save

from alserve.files import write_atomic
from alserve.measure.dataset import load_dataset
from training.data.synthetic import draw_dataset
from training.run.folder import Run
from training.run.records import read_rounds
from training.run.state import State
from training.settings import Settings
from training.train import train_run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of two images, with masks in a mirrored folder."""
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        write_atomic(tmp_path / "data" / name, encoded(picture(40, 60, sum(name.encode()))))
        write_atomic(tmp_path / "masks" / name, encoded(np.eye(40, 60, dtype=np.uint8) * 255))
    return tmp_path / "data"


def test_learn_export_evaluate_segment(cli: Cli, tmp_path: Path) -> None:
    """With the encoder that users get, from its packaged weights."""
    table = draw_dataset(tmp_path / "data", seed=2, train_per_class=3, test_per_class=1, size=(96, 128))
    run, model, out = tmp_path / "run", tmp_path / "sub" / "model.onnx", tmp_path / "out"
    train_run(table, run, settings(method="masks-only", rounds=1))
    (record,) = read_rounds(run)
    assert (record["masks_used"], record["pseudo_labels"]) == (2, 0)

    assert cli("export", run, "--out", model)[0] == 0
    assert model.read_bytes() == (run / "model.onnx").read_bytes()

    assert cli("evaluate", model, table, "--json", tmp_path / "figures.json")[0] == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["images"] == 2
    for name in ("dice", "iou", "accuracy"):
        assert figures[name] == pytest.approx(record[f"test_{name}"])

    tests = sorted((tmp_path / "data" / "images").rglob("test-*.jpg"))
    assert cli("segment", *tests[:1], "--out", out, "--model", model, "--device", "cpu")[0] == 0
    (mask,) = (out / "masks").rglob("*.png")
    pixels = cv2.imdecode(np.frombuffer(mask.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    image = cv2.imdecode(np.frombuffer(tests[0].read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == image.shape[:2]
    assert set(np.unique(pixels)) <= {0, 255}

    _, said, _ = cli("info", model)
    assert hashlib.sha256(model.read_bytes()).hexdigest() in said.replace("\n", "")


def test_a_run_that_waits_for_masks_says_so_by_its_exit_code(cli: Cli, tmp_path: Path) -> None:
    table = draw_dataset(tmp_path / "data", seed=2, train_per_class=3, test_per_class=1, size=(96, 128))
    drawing = tmp_path / "drawing"
    command = ("train", table, "--out", tmp_path / "run", "--oracle", f"folder:{drawing}", *SMALL)
    few = ("--short-side", 64, "--steps", 2, "--classifier-steps", 2)
    assert cli(*command, *few)[0] == 3
    assert cli(*command, *few)[0] == 3
    for sample in load_dataset(table).split("train"):
        assert sample.mask is not None
        write_atomic(drawing / "masks" / Path(sample.name).with_suffix(".png"), sample.mask.read_bytes())
    code, _, said = cli(*command, *few)
    assert code == 0, said
    assert (tmp_path / "run" / "model.onnx").is_file()


def test_evaluate_refuses(cli: Cli, data: Path, tmp_path: Path, predictor: object) -> None:
    model = predictor.engine.path  # type: ignore[attr-defined]
    assert_refused(cli("evaluate", tmp_path / "no.onnx", data), "no.onnx")
    assert_refused(cli("evaluate", data / "a" / "1.png", data), "1.png")
    assert_refused(cli("evaluate", model, data), "no image in split 'test'", "train")
    assert_refused(cli("evaluate", model, data, "--split", "train"), "its classes are a, b")


def test_export_refuses(cli: Cli, data: Path, tmp_path: Path) -> None:
    assert_refused(cli("export", data, "--out", tmp_path / "model.onnx"), "holds no training run", "alserve train")
    assert not (tmp_path / "model.onnx").exists()


def test_train_refuses_encoder_weights_before_it_begins(cli: Cli, data: Path, tmp_path: Path) -> None:
    command = ("train", data, "--masks", tmp_path / "masks", "--out", tmp_path / "run", "--encoder", "resnet18")
    (tmp_path / "text").write_text("no weights")
    for name, words in (("nowhere", "there is no such file"), ("text", "is damaged, or no file of weights")):
        path = tmp_path / name
        assert_refused(cli(*command, "--initial", 1, "--rounds", 1, "--encoder-weights", path), f"{path}: {words}")
    assert not (tmp_path / "run").exists()


def spoil(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: write_atomic(folder / name, content)


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(folder / name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove("data"), ["data: no such folder or CSV file"]),
        (remove("data/b"), ["mask", "no image of the same name"]),
        (lambda folder: (remove("data/b")(folder), remove("masks/b")(folder)), ["only one class (a)"]),
        (lambda folder: (folder / "data" / "c").mkdir(), ["data/c", "holds no images"]),
        (spoil("data/stray.png", b"x"), ["stray.png", "no label"]),
        (spoil("data/b/1.png", b"hello"), ["data/b/1.png", "not an image"]),
        (spoil("masks/b/1.png", encoded(picture(41, 60))), ["masks/b/1.png", "60 x 41", "60 x 40"]),
        (spoil("masks/b/9.png", b"x"), ["masks/b/9.png", "no image of the same name"]),
        (remove("masks"), ["no such folder of masks"]),
        (remove("masks/b"), ["class b has 0 training images with a mask, but the budget is 1"]),
        (spoil("run", b"a file"), ["run", "holds no run"]),
        (spoil("run/notes.txt", b"mine"), ["run", "is not empty and holds no run", "another --out"]),
    ],
)
def test_train_refuses_bad_input(
    cli: Cli, data: Path, tmp_path: Path, change: Callable[[Path], object], words: list[str]
) -> None:
    change(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    command = ("train", data, "--masks", tmp_path / "masks", "--out", tmp_path / "run", "--initial", 1, "--rounds", 1)
    assert_refused(cli(*command), *words)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--initial", 3], ["class a has 2", "the budget is 7", "--initial", "--per-round"]),
        (["--initial", 1, "--per-round", 2, "--rounds", 2], ["the budget is 3"]),
        (["--initial", 1, "--rounds", 1, "--validation-masks"], ["--validation-masks", "split 'valid'"]),
        (["--preset", "cells"], ["unknown preset 'cells'", "glas, cub"]),
        (["--method", "magic"], ["--method", "label-propagation"]),
        (["--short-side", 100], ["--short-side 100: should be a multiple of 32"]),
        (["--short-side", 32], ["--short-side", "64"]),
        (["--short-side", 32_000], ["--short-side", "4096"]),
        (["--rounds", 10**9], ["--rounds", "1000000"]),
        (["--set", "lr=inf"], ["--set lr=inf: should be a finite number"]),
        (["--set", "lr=nan"], ["--set lr=nan: "]),
        (["--seed", -1], ["--seed -1: "]),
        (["--per-round", 0], ["--per-round 0: should be greater than or equal to 1"]),
        (["--steps", "many"], ["--steps many: should be a valid integer", "alserve train --help"]),
        (["--set", "k=-1"], ["--set k=-1: should be greater than 0"]),
        (["--query", "coreset"], ["'coreset'", "did you mean core-set"]),
        (["--empty-class", "free"], ["data: has no class 'free' (--empty-class)", "there are a, b"]),
        (["--empty-class", "a", "--empty-class", "b"], ["names all classes (a, b)", "must have foreground"]),
        (["--empty-class", "a"], ["masks/a/1.png: has foreground", "(2 such masks in split 'train')", "correct"]),
        (["--set", "folds"], ["--set folds", "NAME=VALUE"]),
        (["--set", "fold=3"], ["unknown setting 'fold'", "did you mean folds"]),
        (["--set", "folds=1"], ["folds 1: nothing would be left to train on"]),
        (["--device", "tpu"], ["--device tpu: is not one of 'auto', 'cpu', 'cuda'"]),
        (["--initial", 1, "--rounds", 1, "--encoder", "resnet99"], ["encoder 'resnet99'", "timm.list_models()"]),
        (["--initial", 1, "--rounds", 1, "--decoder", "unett"], ["decoder 'unett'", "did you mean unet"]),
    ],
)
def test_train_refuses_bad_options(
    cli: Cli, data: Path, tmp_path: Path, options: list[object], words: list[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = cli("train", data, "--masks", tmp_path / "masks", "--out", tmp_path / "run", *options)
    assert_refused(result, *words)
    assert sorted(tmp_path.rglob("*")) == before


SMALL = ("--encoder", "resnet18", "--set", "pretrained=false", "--method", "masks-only", "--initial", 1, "--rounds", 1)
LINE = {"round": 1, "masks_used": 2, "pseudo_labels": 0, "threshold": 0.5, "asked": []}
DEEP = b"[" * 100_000


def begun(data: Path, out: Path) -> None:
    """A run that has just begun, and says that a round is finished."""
    chosen = Settings.of(
        None, {"encoder": "resnet18", "pretrained": False, "method": "masks-only", "initial": 1, "rounds": 1}
    )
    masks = data.with_name("masks")
    fingerprint = load_dataset(data, masks).fingerprint()
    with Run(out, chosen, source=data, masks=masks, fingerprint=fingerprint).begin() as run:
        run.save_state(State())
    (out / "rounds.jsonl").write_text(json.dumps(LINE) + "\n")


def without(out: Path, key: str) -> bytes:
    config = json.loads((out / "config.json").read_text())
    config["settings"].pop(key, None)
    config.pop(key, None)
    return json.dumps(config).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b""),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"\xff"),
        ("config.json", DEEP),
        ("config.json", "method"),
        ("config.json", "seed"),
        ("config.json", "source"),
        ("config.json", "settings"),
        ("rounds.jsonl", b"{"),
        ("rounds.jsonl", b"[]\n"),
        ("rounds.jsonl", b"3"),
        ("rounds.jsonl", b"\xff"),
        ("rounds.jsonl", DEEP),
        ("rounds.jsonl", b"{}"),
        ("rounds.jsonl", json.dumps({**LINE, "round": "1"}).encode()),
        ("rounds.jsonl", json.dumps({**LINE, "test_dice": float("nan")}).encode()),
        ("rounds.jsonl", json.dumps({**LINE, "masks_used": []}).encode()),
        ("rounds.jsonl", json.dumps({**LINE, "asked": [3]}).encode()),
        ("rounds.jsonl", json.dumps({**LINE, "threshold": 7777}).replace("7777", "1e400").encode()),
    ],
)
def test_a_damaged_run_is_not_reported(cli: Cli, data: Path, tmp_path: Path, name: str, content: bytes | str) -> None:
    run = tmp_path / "run"
    begun(data, run)
    write_atomic(run / name, without(run, content) if isinstance(content, str) else content)
    assert_refused(cli("report", run), f"run/{name}: ", "damaged")
    if name == "config.json":
        assert_refused(cli("export", run, "--out", tmp_path / "x.onnx"), "run/config.json: is damaged")
        assert_refused(cli("train", data, "--masks", tmp_path / "masks", "--out", run, *SMALL), "is damaged")
    else:
        (run / name).unlink()
        (run / name).mkdir()
        assert_refused(cli("report", run), f"run/{name}: cannot be read")


def stored(**changes: Any) -> bytes:
    fields = {"round": 1, "passes": 0, "asked": [[0]], "threshold": 0.5, "records": [], **changes}
    return save({"weights/a": torch.zeros(2)}, metadata={"state": json.dumps(fields)})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        bytes(100),
        b"\xff" * 8,
        stored()[:-3],
        save({}),
        save({}, metadata={"state": "{"}),
        save({}, metadata={"state": "[" * 100_000}),
        save({"pseudo/x": torch.zeros(2)}, metadata={"state": "{}"}),
        stored(round=0),
        stored(round="1"),
        stored(asked=3),
        stored(asked=[[-1]]),
        stored(asked=[[99]]),
        stored(records=[3]),
        stored(speed=3),
        stored(threshold=[]),
    ],
)
def test_a_damaged_state_is_not_continued(cli: Cli, data: Path, tmp_path: Path, content: bytes) -> None:
    run = tmp_path / "run"
    begun(data, run)
    write_atomic(run / "state" / "theta0.safetensors", save({"a": torch.zeros(2)}))
    write_atomic(run / "state" / "latest.safetensors", content)
    command = ("train", data, "--masks", tmp_path / "masks", "--out", run, *SMALL)
    code, _, said = cli(*command)
    assert code == 2
    line = said.splitlines()[-1]
    assert line.startswith(f"alserve: {run}")
    assert "begin the run anew with --overwrite" in line
    assert "Traceback" not in said


def test_damaged_weights_are_not_continued(cli: Cli, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begun(data, run)
    command = ("train", data, "--masks", tmp_path / "masks", "--out", run, *SMALL)
    for content in (b"", save({"a": torch.zeros(2)}), save({"a": torch.zeros(2)})[:-3]):
        write_atomic(run / "state" / "theta0.safetensors", content)
        code, _, said = cli(*command)
        assert (code, "Traceback" in said) == (2, False)
        assert "begin the run anew with --overwrite" in said.splitlines()[-1]


def test_a_broken_pipe_is_no_error(tmp_path: Path) -> None:
    begin = "import sys, time; time.sleep(2); from alserve.cli import main; sys.argv = ['alserve', '--help']; main()"
    with subprocess.Popen([sys.executable, "-c", begin], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1
    assert not list(tmp_path.iterdir())
