"""Experiments as a user runs them: several methods and seeds, killed, hindered, continued, reported."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from command import Cli, assert_refused
from drawn import UNTRAINED, example, settings

from alserve import terminal
from alserve.errors import DataError
from alserve.runtime.device import available_cores
from training.compare.experiment import read_experiment, run_experiment, settings_of
from training.compare.jobs import Job, places
from training.data.synthetic import draw_dataset
from training.learning.learner import weights_of
from training.learning.shared import NOT_IN_FIRST_PASS, NOT_IN_THETA0, Shared
from training.model.phases import Trainer
from training.report.page import DASH
from training.run.records import read_rounds
from training.run.state import Weights
from training.settings import Settings
from training.train import train_run

ONE_ROUND = {**UNTRAINED, "rounds": 1, "passes": 1}
METHODS = {"spread": {"method": "label-propagation"}, "plain": {"method": "masks-only"}}


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Cli(monkeypatch, capsys)


def write_config(folder: Path, **values: Any) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and an experiment on it."""
    folder = tmp_path_factory.mktemp("experiment")
    draw_dataset(folder / "data", seed=1, train_per_class=4, test_per_class=1, size=(96, 128))
    write_config(folder, data="data/data.csv", settings=ONE_ROUND, methods=METHODS, seeds=[0, 1])
    return folder


def kill_worker(name: str, when: Path) -> None:
    """Kill a run of this process's experiment without warning, as soon as something is there."""
    while not when.exists():
        time.sleep(0.01)
    (worker,) = [it for it in psutil.Process().children() if f'"name":"{name}"' in " ".join(it.cmdline())]
    worker.kill()


@dataclass(frozen=True)
class Story:
    """An experiment with one run made beforehand, alone, and another killed; and the same command again."""

    out: Path
    failures: list[list[str]]
    said: list[str]


@pytest.fixture(scope="module")
def story(folder: Path) -> Story:
    out, threads = folder / "out", torch.get_num_threads()
    torch.set_num_threads(1)
    alone = settings(ONE_ROUND, **METHODS["plain"], seed=1)
    train_run(folder / "data" / "data.csv", out / "plain-1", alone)
    torch.set_num_threads(threads)
    story = Story(out, [], [])
    landmark = out / "spread-0" / "state" / "theta0.safetensors"
    killer = threading.Thread(target=kill_worker, args=("spread-0", landmark), daemon=True)
    killer.start()
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()) as said:
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.setattr(terminal, "PLAIN_LINE_SECONDS", 0.0)
            story.failures.append(run_experiment(folder / "experiment.yaml", out, jobs=2))
        story.said.append(said.getvalue())
    killer.join(60)
    return story


def test_a_run_that_is_killed_stops_no_other_and_continues(story: Story) -> None:
    log = story.out / "logs" / "spread-0.log"
    assert story.failures == [[f"spread-0 failed: ended by SIGKILL (see {log})"], []]
    assert "1 of 4 runs were finished before" in story.said[0]
    assert all(f"alserve: {name}: round 1: 2 masks" in story.said[0] for name in ("spread-1", "plain-0"))
    assert all(f"{rounds} of 3 rounds, " in story.said[0] for rounds in (0, 3))
    assert "3 of 4 runs were finished before" in story.said[1]
    assert "1 of 1 rounds, " in story.said[1]
    assert "alserve: spread-0: round 1: 2 masks" in story.said[1]
    assert "alserve: spread-1: round 1: 2 masks" not in story.said[1]
    assert "| spread | 2 |" in (story.out / "results.md").read_text()
    assert "threshold, part 1 of 2: " in log.read_text()


def test_what_runs_share_is_what_each_would_have_made(story: Story) -> None:
    def theta0(name: str) -> bytes:
        return (story.out / name / "state" / "theta0.safetensors").read_bytes()

    shared = {file.read_bytes() for file in (story.out / "cache").glob("theta0-*.safetensors")}
    assert shared == {theta0("spread-0"), theta0("spread-1")}
    assert theta0("plain-0") == theta0("spread-0")
    assert theta0("plain-1") == theta0("spread-1")  # made alone
    timings = [(story.out / name / "timings.jsonl").read_text() for name in ("spread-0", "plain-0")]
    assert ["classifier" in lines for lines in timings].count(True) == 1
    assert ['"pass 1"' in lines for lines in timings].count(True) == 1
    assert len(list((story.out / "cache").glob("colours-*.npz"))) == 1


def test_a_run_that_cannot_be_is_said_at_the_end(folder: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "out" / "plain-0").mkdir(parents=True)
    (tmp_path / "out" / "plain-0" / "notes.txt").write_text("mine")
    path = write_config(tmp_path, settings=ONE_ROUND, methods={"plain": METHODS["plain"]})
    code, _, said = cli("experiment", path, "--out", tmp_path / "out", "--data", folder / "data" / "data.csv")
    assert code == 1
    assert f"alserve: plain-0 failed: {tmp_path / 'out' / 'plain-0'}: is not empty" in said.splitlines()[-1]


def test_a_worker_ends_with_whom_it_works_for() -> None:
    command = [sys.executable, "-m", "training.compare.worker", "{}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        assert worker.stdin
        worker.stdin.close()
        assert worker.wait(60) == 1
        assert worker.stderr
        assert worker.stderr.read() == b""


def test_runs_at_once_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = available_cores()
    assert list(places(1, [])) == [{"OMP_NUM_THREADS": str(cores)}]
    assert list(places(3 * cores, [])) == [{"OMP_NUM_THREADS": "1"}] * 3 * cores
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(3, ["4", "7"])] == ["4", "7", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert [place["OMP_NUM_THREADS"] for place in places(2, [])] == ["5", "5"]


@pytest.fixture
def longer(story: Story, tmp_path: Path) -> Path:
    """The experiment's runs, with a second round in which 'spread' gains 10 and 12 points, 'plain' 2 and 0."""
    for name, gain in (("spread-0", 0.1), ("spread-1", 0.12), ("plain-0", 0.02), ("plain-1", 0.0)):
        run = tmp_path / "longer" / name
        shutil.copytree(story.out / name, run)
        config, (record,) = json.loads((run / "config.json").read_text()), read_rounds(run)
        config["settings"]["rounds"] = 2
        first = {**record, "test_dice": 0.8, "pseudo_dice": 0.75 if "spread" in name else None}
        second = {**first, "round": 2, "masks_used": 4, "test_dice": 0.8 + gain}
        (run / "config.json").write_text(json.dumps(config))
        (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (first, second)))
    return tmp_path / "longer"


def test_the_report_of_an_experiment(longer: Path, cli: Cli) -> None:
    code, said, _ = cli("report", longer)
    assert (code, said.strip()) == (0, str(longer / "report.html"))
    table = (longer / "results.md").read_text()
    assert "| spread | 2 | 4 | 91.0 ± 1.4 | 50.0 ± 0.0 | 85.5 ± 0.7 | +5.0 (n = 2) |" in table
    assert f"| plain | 2 | 4 | 81.0 ± 1.4 | 50.0 ± 0.0 | 80.5 ± 0.7 | {DASH} |" in table
    page = (longer / "report.html").read_text()
    for words in ("from 2 to 4 masks", "85.5 ± 0.7", "Against plain", "75.0 ± 0.0", "<td>0, 1</td>"):
        assert words in page, words
    assert page.count("Round 1: 2 images") == 2
    assert "Ablation" not in page
    assert cli("report", longer, "--between", "2-3")[0] == 0
    assert " ± 0.4 | +2.5 (n = 2) |" in (longer / "results.md").read_text()
    addresses = re.findall(r'(?:src|srcset|href)="([^"]{0,20})', page)
    assert len(addresses) >= 6
    assert all(address.startswith("data:image/") for address in addresses)
    figures = {path.name: path.read_bytes()[:5] for path in (longer / "figures").iterdir()}
    assert figures == {
        "dice.png": b"\x89PNG\r",
        "dice.svg": b"<?xml",
        "pseudo.png": b"\x89PNG\r",
        "pseudo.svg": b"<?xml",
    }


def test_what_differs_between_runs_of_a_method_is_an_ablation(longer: Path, cli: Cli) -> None:
    config = json.loads((longer / "spread-1" / "config.json").read_text())
    config["settings"] |= {"k": 0.5, "pseudo_weight": 0.125}
    (longer / "spread-1" / "config.json").write_text(json.dumps(config))
    shutil.copytree(longer / "spread-0", longer / "again")
    assert cli("report", longer)[0] == 0
    page = (longer / "report.html").read_text()
    for words in ("Ablation: label-propagation", "<th>k</th><th>pseudo weight (λ)</th>", "<td>0.5</td><td>0.125</td>"):
        assert words in page, words
    table = (longer / "results.md").read_text()
    for words in ("Label-propagation, what differs:", "|  | k | pseudo weight |", "| 0.5 | 0.125 |"):
        assert words in table, words
    assert "spread-0 is left out" in page or "again is left out" in page


def test_runs_of_one_budget_stand_in_rows(longer: Path, cli: Cli) -> None:
    for path in longer.glob("*/rounds.jsonl"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
        config = json.loads((path.parent / "config.json").read_text())
        config["settings"]["rounds"] = 1
        (path.parent / "config.json").write_text(json.dumps(config))
    assert cli("report", longer)[0] == 0
    page, table = (longer / "report.html").read_text(), (longer / "results.md").read_text()
    for words in ("With 2 masks", "Test Dice, difference", "<th>Pseudo-masks</th><th>Their Dice</th>"):
        assert words in page, words
    assert "<h2>Budgets</h2>" not in page
    assert "| spread | 2 | 2 | 80.0 ± 0.0 | 50.0 ± 0.0 | +0.0 (n = 2) |" in table
    assert "| masks |" not in table.replace("| seeds | masks |", "")
    assert len(list((longer / "figures").iterdir())) == 4


def test_unfinished_runs_and_data_that_are_gone(longer: Path, cli: Cli) -> None:
    rounds = longer / "plain-1" / "rounds.jsonl"
    rounds.write_text(rounds.read_text().splitlines()[0] + "\n")
    (longer / "spread-1" / "rounds.jsonl").unlink()
    for run in ("plain-0", "spread-0"):
        config = json.loads((longer / run / "config.json").read_text())
        (longer / run / "config.json").write_text(json.dumps({**config, "source": str(longer / "gone.csv")}))
    code, _, said = cli("report", longer)
    assert code == 0
    assert "no pictures in the report: " in said
    assert "gone.csv" in said
    page, table = (longer / "report.html").read_text(), (longer / "results.md").read_text()
    assert "plain-1 is not finished: round 2 comes next." in page
    assert "spread-1 is not finished: round 1 comes next." in page
    assert "| plain | 1 | 4 | 82.0 |" in table
    assert "What was asked for" not in page


def test_runs_without_test_masks_are_shown_without_curves(longer: Path, cli: Cli) -> None:
    for path in longer.glob("*/rounds.jsonl"):
        records = [{**json.loads(line), "test_dice": None} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert cli("report", longer)[0] == 0
    table, page = (longer / "results.md").read_text(), (longer / "report.html").read_text()
    assert f"| spread | 2 | 4 | {DASH} | 50.0 ± 0.0 |\n" in table
    assert "What each mask brought" not in page
    assert "None" not in page
    assert not list((longer / "figures").glob("dice.*"))


def test_the_report_of_one_run(longer: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("report", longer / "spread-0", "--out", tmp_path / "one")[0] == 0
    page = (tmp_path / "one" / "report.html").read_text()
    for words in ("<h1>spread-0</h1>", "What the expert was asked for", "Their Dice", "Round 2: 2 images"):
        assert words in page, words
    assert sorted(path.name for path in (tmp_path / "one" / "figures").iterdir()) == ["dice.png", "dice.svg"]


def test_report_refuses(longer: Path, tmp_path: Path, cli: Cli) -> None:
    other = longer / "plain-0"
    assert_refused(cli("report", tmp_path), "holds no training run", "alserve experiment")
    assert_refused(cli("report", other, longer / "plain-1"), "--out")
    for text in ("24-8", "8", "eight-24"):
        assert_refused(cli("report", longer, "--between", text), f"--between {text}", "8-24")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "fingerprint": "f"}))
    assert_refused(cli("report", longer, "--out", tmp_path / "new"), "learned from other data")
    (other / "rounds.jsonl").unlink()
    assert_refused(cli("report", other), "no round is finished")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sedes": [1]}, ["unknown key 'sedes'", "did you mean seeds?"]),
        ({"preset": "glass"}, ["unknown preset 'glass'", "did you mean glas?"]),
        ({"settings": {"step": 3}}, ["method plain: unknown key 'step'", "did you mean steps?"]),
        (
            {"methods": {"a": {"method": "mask-only"}}},
            ["method a: unknown method 'mask-only'", "did you mean masks-only?"],
        ),
        ({"methods": {"a": {"query": "entorpy"}}}, ["method a: unknown strategy 'entorpy'", "did you mean entropy?"]),
        ({"methods": {"a": {"seed": 3}}}, ["'seed' in a", "under 'seeds'"]),
        ({"methods": {"a": {"steps": 0}}}, ["method a: steps: "]),
        ({"methods": {"a": "random"}}, ["methods.a: ", "dictionary"]),
        ({"methods": {"../a": {}}}, ["methods.../a: ", "pattern"]),
        ({"methods": {}}, ["methods: "]),
        ({"methods": {"a" * 101: {}}}, ["methods."]),
        ({"methods": {"a\nb": {}}}, ["methods.a\\nb: "]),
        ({"methods": {"plain": {}, "Plain": {}}}, ["'Plain' and 'plain' differ by case"]),
        ({"methods": [1]}, ["methods: ", "dictionary"]),
        ({"methods": {"a": {"lr": float("inf")}}}, ["method a: lr: ", "finite"]),
        ({"methods": {"a": {"rounds": 10**9}}}, ["method a: rounds: ", "less than"]),
        ({"methods": {"a": {"short_side": 32}}}, ["method a: short_side: ", "64"]),
        ({"methods": {"a": {"method": ["x\ny"]}}}, ["method a: "]),
        ({"settings": {1: 2}}, ["settings"]),
        ({"masks": {}}, ["masks: "]),
        ({"seeds": [0, 0]}, ["seed is there twice"]),
        ({"seeds": ["one"]}, ["seeds.0: "]),
        ({"data": None}, ["says no 'data'", "--data"]),
        ({"data": "nowhere.csv"}, ["nowhere.csv"]),
        ({"settings": {"initial": 9}}, ["class irregular has 4", "the budget"]),
    ],
)
def test_a_file_that_does_not_fit(
    folder: Path, tmp_path: Path, cli: Cli, changes: dict[str, Any], words: list[str]
) -> None:
    (tmp_path / "data").symlink_to(folder / "data")
    path = write_config(tmp_path, **{"data": "data/data.csv", "methods": {"plain": {}}, "seeds": [0], **changes})
    assert_refused(cli("experiment", path, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds: [0\nmethods: {}", "line 2"),
        ("methods: {a: {}, a: {}}", "'a' is there twice"),
        ("", "valid dictionary"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "line 2: aliases"),
        ("a: &a [*a]", "aliases"),
        ("[" * 100_000, "no plain text"),
        ("{[1, 2]: 3}", "found unhashable key"),
        ("{{a: 1}: 3}", "found unhashable key"),
        ("seeds: 2001-99-99", "no plain text"),
        ("seeds: !!int x", "no plain text"),
        ("seeds: !!bool x", "no plain text"),
        ("seeds: !!map 3", "no plain text"),
        ("a: \0", "no YAML"),
        ("a: " + "x" * 300_000, "larger than 256 KiB"),
        ("a: b\n" * 10_000, "'a' is there twice"),
        ("{? : 1, methods: {}}", "methods: "),
    ],
)
def test_a_file_that_is_no_experiment(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_experiment(tmp_path / "e.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), Path.exists])
def test_an_experiment_that_is_no_file(tmp_path: Path, cli: Cli, make: Callable[[Path], object]) -> None:
    make(tmp_path / "e.yaml")
    assert_refused(cli("experiment", tmp_path / "e.yaml", "--out", tmp_path / "out"), "e.yaml: ")
    assert not (tmp_path / "out").exists()


def test_a_job_is_handed_over_whatever_its_paths_are(tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"\xff \n")
    job = Job(name="a-0", data=place, masks=None, out=place, settings=Settings(), device="cpu", cache=place)
    text = job.as_json()
    assert text.isascii()
    assert Job.from_json(text) == job


def test_a_device_that_is_not_there(folder: Path, tmp_path: Path, cli: Cli) -> None:
    result = cli("experiment", folder / "experiment.yaml", "--out", tmp_path / "out", "--device", "tpu")
    assert_refused(result, "'tpu'", "auto, cpu or cuda")


@pytest.mark.parametrize("name", ["glas", "cub"])
def test_the_published_comparisons(name: str) -> None:
    experiment = read_experiment(Path(__file__).parents[2] / "benchmarks" / f"{name}.yaml")
    assert experiment.seeds == (0, 1, 2, 3, 4)
    chosen = [settings_of(experiment, method, seed=3) for method in experiment.methods]
    assert [(it.method, it.query) for it in chosen] == [
        ("cams-only", "random"),
        ("masks-only", "random"),
        ("masks-only", "entropy"),
        ("masks-only", "mc-dropout"),
        ("label-propagation", "random"),
        ("all-masks", "random"),
    ]
    assert {it.seed for it in chosen} == {3}
    assert {len(it.schedule) for it in chosen if it.schedule != [0]} == {25 if name == "glas" else 20}


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "benchmarks").glob("*.yaml")), ids=lambda path: path.stem
)
def test_our_own_experiments_can_be_read(path: Path) -> None:
    experiment = read_experiment(path)
    assert len({settings_of(experiment, method, seed=0) for method in experiment.methods}) == len(experiment.methods)


OTHERS: dict[str, Any] = {
    "method": "masks-only",
    "query": "entropy",
    "initial": 3,
    "per_round": 2,
    "rounds": 7,
    "passes": 4,
    "k": 3.0,
    "pseudo_weight": 0.1,
    "pseudo_share": 0.2,
    "pseudo_targets": "soft",
    "pseudo_pixels": "weighted",
    "pseudo_flips": True,
    "folds": 5,
    "validation_masks": True,
    "references": False,
}
"""Of every setting that is said not to bear on a training on L alone, another value."""

OTHERS_LATER: dict[str, Any] = {"steps": 5, "lr": 0.5, "encoder_lr": 0.1}
"""Of those that bear on it, but not on theta0."""


class Shelf:
    """What is shared in one folder, and how often it was trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trained = 0

    def take(
        self, *, fingerprint: str = "f", labelled: tuple[int, ...] = (0, 3), **changes: Any
    ) -> list[dict[str, Any]]:
        """Give theta0 and the weights of the first pass, as a run with these settings gets them."""
        trainer = Trainer(settings(UNTRAINED, **changes), "cpu")
        shared = Shared(self.folder, trainer, fingerprint)
        net = trainer.new_network(2, 5)

        def train_classifier() -> Weights:
            self.trained += 1
            trainer.train_classifier(net, [example(seed) for seed in range(4)], 5)
            return weights_of(net)

        def train_segmenter() -> Weights:
            self.trained += 1
            trainer.train_segmenter(net, [example(seed) for seed in labelled], [], 6, "a pass")
            return weights_of(net)

        theta0 = shared.theta0(train_classifier)
        net.load_state_dict(dict(theta0))
        return [dict(theta0), dict(shared.first_pass(labelled, train_segmenter))]


def same(one: Weights, other: Weights) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_what_is_shared_does_not_depend_on_what_it_is_not_filed_by(tmp_path: Path) -> None:
    assert OTHERS.keys() == NOT_IN_FIRST_PASS
    assert OTHERS_LATER.keys() == NOT_IN_THETA0 - NOT_IN_FIRST_PASS
    here, elsewhere = Shelf(tmp_path / "here"), Shelf(tmp_path / "elsewhere")
    theta0, first = here.take()
    assert not same(theta0, first)
    assert all(map(same, here.take(**OTHERS), (theta0, first)))
    assert here.trained == 2
    assert all(map(same, elsewhere.take(**OTHERS), (theta0, first)))
    assert elsewhere.trained == 2
    assert same(here.take(**OTHERS_LATER)[0], theta0)
    assert here.trained == 3


def test_what_is_shared_is_filed_by_all_else(tmp_path: Path) -> None:
    others: dict[str, Any] = {
        "seed": 1,
        "encoder": "resnet34",
        "pretrained": True,
        "short_side": 96,
        "crop": 32,
        "batch": 6,
        "any_orientation": False,
        "classifier_steps": 5,
        "classifier_lr": 0.5,
        "classifier_depth": "encoder",
        "weight_decay": 0.5,
    }
    names = Settings.model_fields.keys() - NOT_IN_THETA0
    assert names == others.keys(), (
        "a new setting: say here, or in training/learning/shared.py, whether a training depends on it"
    )

    def nothing() -> Weights:
        return {"nothing": torch.zeros(1)}

    def share(fingerprint: str = "f", labelled: tuple[int, ...] = (0, 3), **changes: Any) -> None:
        shared = Shared(tmp_path, Trainer(settings(UNTRAINED, **changes), "cpu"), fingerprint)
        shared.theta0(nothing)
        shared.first_pass(labelled, nothing)

    def count(what: str) -> int:
        return len(list(tmp_path.glob(f"{what}-*.safetensors")))

    share()
    share(fingerprint="g")
    for name in names:
        share(**{name: others[name]})
    assert count("theta0") == count("first-pass") == 2 + len(others)
    for name, value in OTHERS_LATER.items():
        share(**{name: value})
    share(labelled=(0, 4))
    share(query="mc-dropout")
    assert count("theta0") == 2 + len(others)
    assert count("first-pass") == 2 + len(others) + len(OTHERS_LATER) + 2


def test_a_run_alone_shares_nothing() -> None:
    alone = Shared(None, Trainer(settings(UNTRAINED), "cpu"), "f")
    assert [alone.theta0(lambda tensor=tensor: {"w": tensor})["w"] for tensor in torch.arange(2)] == [0, 1]
