"""Whole runs on a small drawn data set: budgets, sets, bounds, and a run that is killed again and again."""

import io
import json
import math
import re
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import UNTRAINED, settings
from forked import kill_when
from tables import rewrite

from alserve import load, terminal
from alserve.errors import DataError, RunError
from alserve.files import write_atomic
from alserve.geometry import resize, resize_mask, working_shape
from alserve.images.codec import decode, encode_png
from alserve.measure.dataset import load_dataset
from alserve.measure.evaluate import measure
from alserve.measure.metrics import dice
from alserve.modelfile import ModelSpec
from training.data.synthetic import draw_dataset
from training.learning import data
from training.learning.algorithm import describe as describe_round
from training.learning.neighbours import neighbours, within_reach
from training.learning.pseudo import foreground
from training.learning.similarity import describe
from training.run.folder import Run
from training.run.records import read_rounds
from training.run.result import RunResult
from training.run.state import State
from training.settings import Settings
from training.train import train_run

PER_CLASS = 6
RESULTS = ("rounds.jsonl", "model.onnx", "state/latest.safetensors", "state/pseudo-2-2.pixels")
PROPAGATION = settings(UNTRAINED, initial=2)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    return draw_dataset(out, seed=1, train_per_class=PER_CLASS, test_per_class=2, size=(96, 128))


@dataclass(frozen=True)
class Trained:
    """Label propagation, two rounds of two passes, undisturbed."""

    result: RunResult
    records: list[Any]
    said: list[str]
    seconds: float


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    out = tmp_path_factory.mktemp("runs") / "propagation"
    records: list[Any] = []
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()) as said:
        patch.setattr(terminal, "PLAIN_LINE_SECONDS", math.inf)  # on a busy machine, too, only what has ended is said
        result = train_run(table, out, PROPAGATION, progress=records.append)
    return Trained(result, records, said.getvalue().splitlines(), time.monotonic() - began)


@pytest.fixture(scope="module")
def run(trained: Trained) -> Path:
    return trained.result.folder


@pytest.fixture(scope="module")
def rounds(run: Path) -> list[dict[str, Any]]:
    return read_rounds(run)


def spec_of(run: Path) -> ModelSpec:
    return load(run / "model.onnx", device="cpu").spec


def what_took_time(run: Path) -> list[tuple[int, str]]:
    lines = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    return [(line["round"], line["what"]) for line in lines]


def test_a_round_is_one_budget(rounds: list[dict[str, Any]]) -> None:
    assert [record["round"] for record in rounds] == [1, 2]
    assert [record["masks_used"] for record in rounds] == [2 * 2, 2 * (2 + 1)]
    assert [len(record["asked"]) for record in rounds] == [4, 2]
    asked = [name for record in rounds for name in record["asked"]]
    assert len(set(asked)) == len(asked)
    for record, wanted in zip(rounds, (2, 1), strict=True):
        labels = [name.split("/")[1] for name in record["asked"]]
        assert {labels.count(label) for label in set(labels)} == {wanted}
        assert len(set(labels)) == 2
        assert all("train" in name for name in record["asked"])


def test_images_near_a_labelled_one_carry_pseudo_masks(table: Path, rounds: list[dict[str, Any]]) -> None:
    samples = load_dataset(table).split("train")
    images = [sample.read()[0] for sample in samples]
    images = [resize(image, working_shape(*image.shape[:2], PROPAGATION.short_side)) for image in images]
    nearest = neighbours(describe(images), [sample.label for sample in samples], PROPAGATION.k, 0)
    places = {sample.name: index for index, sample in enumerate(samples)}
    labelled: set[int] = set()
    pseudo: set[int] = set()
    for record in rounds:
        asked = {places[name] for name in record["asked"]}
        for label in (0, 1):
            free = {i for i, sample in enumerate(samples) if sample.label == label} - labelled - pseudo
            chosen = {index for index in asked if samples[index].label == label}
            assert chosen <= free or len(free) < len(chosen)  # P is protected
        labelled |= asked
        pseudo -= asked
        pseudo |= set(within_reach(set(range(len(samples))) - labelled, labelled, nearest))
        assert record["pseudo_labels"] == len(pseudo)
    assert 0 < rounds[0]["pseudo_labels"] < 2 * PER_CLASS - 4  # k excludes some


def state_of(table: Path, out: Path) -> State:
    fingerprint = load_dataset(table).fingerprint()
    with Run(out, PROPAGATION, source=table, fingerprint=fingerprint) as run:
        return run.load_state()


def test_pseudo_masks_are_measured_where_the_truth_is_known(
    table: Path, run: Path, rounds: list[dict[str, Any]]
) -> None:
    train = load_dataset(table).split("train")
    found = []
    for index, mask in state_of(table, run).pseudo.items():
        truth = train[index].read()[1]
        assert truth is not None
        found.append(dice(foreground(mask), resize_mask(truth, mask.shape)))
    assert len(found) == rounds[-1]["pseudo_labels"]
    assert rounds[-1]["pseudo_dice"] == pytest.approx(np.mean(found))
    assert f"pseudo-masks (Dice {100 * np.mean(found):.1f} %)" in describe_round(rounds[-1])


def test_true_masks_that_nobody_asked_for_teach_nothing(
    table: Path, rounds: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The first round again where those masks are other ones: another figure for P, and nothing else."""
    asked = rounds[0]["asked"]

    def spoil(line: dict[str, str]) -> dict[str, str]:
        if line["split"] == "test" or line["image"] in asked:
            return line
        image = decode((table.parent / line["image"]).read_bytes())
        name = line["mask"].replace("masks/", "spoilt/")
        write_atomic(table.parent / name, encode_png(np.zeros(image.shape[:2], np.uint8)))
        return {**line, "mask": name}

    spoilt = rewrite(table, "spoilt.csv", spoil)
    train_run(spoilt, tmp_path / "run", settings(UNTRAINED, initial=2, rounds=1))
    (again,) = read_rounds(tmp_path / "run")
    assert again["pseudo_dice"] != rounds[0]["pseudo_dice"]
    assert {**again, "pseudo_dice": 0} == {**rounds[0], "pseudo_dice": 0}


def test_what_a_run_returns_and_says(trained: Trained, rounds: list[dict[str, Any]]) -> None:
    result = trained.result
    assert (result.finished, result.waiting) == (True, False)
    assert result.model.is_file()
    assert result.report.is_file()
    assert [dict(record) for record in trained.records] == list(result.rounds) == rounds
    for number in (1, 2):
        said = [line for line in trained.said if line.startswith(f"alserve: round {number}, ")]
        assert [re.sub(r"\d+ s.*|: writing.*", "", line.partition(", ")[2]) for line in said] == [
            "pass 1: ",
            "pass 2: ",
            "export",
            "export: ",
            "4 test images: ",
        ]


def test_the_times_of_the_rounds_leave_nothing_out(trained: Trained) -> None:
    """But for the report, which is written afterwards."""
    seconds = trained.result.seconds
    assert seconds.keys() == {0, 1, 2}
    parts = [json.loads(line) for line in (trained.result.folder / "timings.jsonl").read_text().splitlines()]
    written = trained.result.report.stat().st_mtime - trained.result.model.stat().st_mtime
    assert trained.seconds - written - 2 < sum(seconds.values()) < trained.seconds
    assert sum(part["seconds"] for part in parts if part["round"] == 1) == pytest.approx(seconds[1])


def test_what_a_run_leaves(run: Path, rounds: list[dict[str, Any]]) -> None:
    left = {path.name for path in run.iterdir()}
    assert left == {"config.json", "model.onnx", "report.html", "rounds.jsonl", "state", "timings.jsonl"}
    assert not list(run.parent.glob(".*.lock"))
    spec = spec_of(run)
    assert spec.classes == load_dataset(Path(json.loads((run / "config.json").read_text())["source"])).classes
    assert spec.threshold == rounds[-1]["threshold"]
    assert spec.short_side == PROPAGATION.short_side
    assert (spec.provenance.method, spec.provenance.rounds, spec.provenance.masks_used) == ("label-propagation", 2, 6)
    assert spec.provenance.encoder == "resnet18"
    passes = [(number, what) for number, what in what_took_time(run) if "pass" in what]
    assert passes == [(1, "pass 1"), (1, "pass 2"), (2, "pass 1"), (2, "pass 2")]


def test_the_figures_are_those_of_the_file_as_it_is_served(
    table: Path, run: Path, rounds: list[dict[str, Any]]
) -> None:
    figures = measure(load(run / "model.onnx", device="cpu", threads=1), load_dataset(table).split("test"))
    assert figures.images == figures.masks == 4
    assert rounds[-1]["test_dice"] == pytest.approx(figures.dice)
    assert rounds[-1]["test_accuracy"] == pytest.approx(figures.accuracy)


def test_a_finished_run_does_nothing_more(table: Path, run: Path) -> None:
    before = (run / "model.onnx").stat().st_mtime_ns, (run / "timings.jsonl").read_bytes()
    train_run(table, run, PROPAGATION)
    assert ((run / "model.onnx").stat().st_mtime_ns, (run / "timings.jsonl").read_bytes()) == before


def test_other_data_are_refused(table: Path, run: Path) -> None:
    other = rewrite(table, "other.csv", lambda line: {**line, "split": "train"})
    with pytest.raises(RunError, match="belongs to other data"):
        train_run(other, run, PROPAGATION)


def continue_until_finished(table: Path, out: Path, chosen: Settings, landmarks: Sequence[Callable[[], bool]]) -> None:
    """Kill the run at every landmark, and start it once more."""
    for landmark in landmarks:
        assert kill_when(landmark, table, out, chosen) == -signal.SIGKILL
    train_run(table, out, chosen)


def test_a_run_that_is_killed_ends_as_if_nothing_had_happened(table: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    latest = out / "state" / "latest.safetensors"
    landmarks = [
        (out / "state" / "theta0.safetensors").exists,
        latest.exists,  # what is asked for
        lambda: latest.stat().st_size > 1_000_000,  # the network after a pass
        (out / "model.onnx").exists,
    ]
    continue_until_finished(table, out, PROPAGATION, landmarks)
    for name in (*RESULTS, "state/theta0.safetensors"):
        assert (out / name).read_bytes() == (run / name).read_bytes(), name
    assert {path.name for path in (out / "state").iterdir()} == {path.name for path in (run / "state").iterdir()}


def test_a_run_by_consistency_has_one_training_a_round_and_may_be_killed(table: Path, tmp_path: Path) -> None:
    chosen = settings(UNTRAINED, method="consistency", class_batch=2, rounds=1)
    whole, out = train_run(table, tmp_path / "whole", chosen).folder, tmp_path / "killed"
    (record,) = read_rounds(whole)
    unlabelled = 2 * PER_CLASS - 2
    assert (record["masks_used"], record["pseudo_labels"], record["threshold"]) == (2, unlabelled, 0.5)
    assert record["threshold_reason"] == "foreground where that is more likely than not"
    assert [what for round_, what in what_took_time(whole) if round_ == 1 and what.startswith("pass")] == ["pass 1"]
    landmarks = [(out / "state" / "latest.safetensors").exists, (out / "model.onnx").exists]
    continue_until_finished(table, out, chosen, landmarks)
    for name in ("rounds.jsonl", "model.onnx", "state/latest.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_whose_images_are_in_a_file_learns_the_same(
    table: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "IN_MEMORY", 0)
    with redirect_stderr(io.StringIO()) as said:
        train_run(table, tmp_path / "run", PROPAGATION)
    assert "keeps the training images" in said.getvalue()
    for name in RESULTS:
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes(), name
    assert not list((tmp_path / "run" / "state").glob("*images-*"))


def test_without_any_mask_and_with_another_seed(table: Path, run: Path, tmp_path: Path) -> None:
    bare = rewrite(table, "bare.csv", lambda line: {key: line[key] for key in ("image", "label", "split")})
    train_run(bare, tmp_path / "run", settings(UNTRAINED, method="cams-only", seed=1))
    (record,) = read_rounds(tmp_path / "run")
    assert (record["masks_used"], record["pseudo_labels"], record["asked"]) == (0, 0, [])
    assert record.get("test_dice") is record["pseudo_dice"] is None
    assert 0 <= record["test_accuracy"] <= 1
    assert 0.05 <= record["threshold"] <= 0.99
    predictor = load(tmp_path / "run" / "model.onnx", device="cpu")
    assert predictor.spec.provenance.masks_used == 0
    (prediction,) = predictor.predict([load_dataset(bare).samples[0].read()[0]])
    assert prediction.working_probability.min() == pytest.approx(0, abs=0.01)
    assert prediction.working_probability.max() == pytest.approx(1, abs=0.05)  # no pixel is in the middle of a cell
    theta0s = [path / "state" / "theta0.safetensors" for path in (run, tmp_path / "run")]
    seeds = [np.frombuffer(path.read_bytes(), np.uint8) for path in theta0s]
    assert np.mean(seeds[0] != seeds[1]) > 0.5


def test_full_supervision_and_masks_for_the_threshold_are_counted(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = rewrite(
        table, "valid.csv", lambda line: {**line, "split": "valid" if "-005" in line["image"] else line["split"]}
    )
    chosen = settings(UNTRAINED, method="all-masks", validation_masks=True, seed=1)
    train_run(held_out, tmp_path / "run", chosen)
    (record,) = read_rounds(tmp_path / "run")
    assert len(record["asked"]) == 2 * (PER_CLASS - 1)
    assert record["masks_used"] == 2 * PER_CLASS
    assert record["pseudo_labels"] == 0
    assert spec_of(tmp_path / "run").provenance.masks_used == 2 * PER_CLASS
    assert "threshold, part" not in capsys.readouterr().err  # no cross-validation


def test_a_class_that_no_model_could_name_is_refused_before_training(tmp_path: Path) -> None:
    table = draw_dataset(tmp_path / "data", seed=2, train_per_class=2, test_per_class=1, size=(64, 64))
    table.write_text(table.read_text().replace(",regular,", f",{'regular' * 40},"))
    with pytest.raises(DataError, match=r"a model cannot have class 'regular.*at most \d+ characters"):
        train_run(table, tmp_path / "run", settings(UNTRAINED))
    assert not (tmp_path / "run").exists()


def test_without_any_mask_but_with_a_class_without_foreground_maps_teach_the_mask(table: Path, tmp_path: Path) -> None:
    bare = rewrite(table, "bare.csv", lambda line: {key: line[key] for key in ("image", "label", "split")})
    train_run(bare, tmp_path / "run", settings(UNTRAINED, method="cams-only", empty_classes=["regular"]))
    (record,) = read_rounds(tmp_path / "run")
    assert (record["masks_used"], record["asked"]) == (0, [])
    assert record["pseudo_labels"] == 4  # seeds: as many as the class has in two steps of four
    assert record["threshold"] == 0.5
    notes = [json.loads(line)["what"] for line in (tmp_path / "run" / "timings.jsonl").read_text().splitlines()]
    assert notes.index("class activation maps") < notes.index("pass 1")


def test_a_model_without_references_by_setting(tmp_path: Path) -> None:
    table = draw_dataset(tmp_path / "data", seed=2, train_per_class=2, test_per_class=1, size=(64, 96))
    run = train_run(table, tmp_path / "run", settings(UNTRAINED, method="cams-only", references=False))
    assert load(run.model, device="cpu").engine.references == ()
