"""An experiment with one run killed and continued, once for all tests of this folder."""

import io
import json
import shutil
import threading
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import torch
from command import Cli
from drawn import settings
from experiments import METHODS, ONE_ROUND, Outcome, kill_worker, write_config

from alserve import terminal
from training.compare.experiment import run_experiment
from training.data.synthetic import draw_dataset
from training.run.records import read_rounds
from training.train import train_run


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Cli(monkeypatch, capsys)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and an experiment on it."""
    folder = tmp_path_factory.mktemp("experiment")
    draw_dataset(folder / "data", seed=1, train_per_class=4, test_per_class=1, size=(96, 128))
    write_config(folder, data="data/data.csv", settings=ONE_ROUND, methods=METHODS, seeds=[0, 1])
    return folder


@pytest.fixture(scope="session")
def outcome(folder: Path) -> Outcome:
    out, threads = folder / "out", torch.get_num_threads()
    torch.set_num_threads(1)
    alone = settings(ONE_ROUND, **METHODS["plain"], seed=1)
    train_run(folder / "data" / "data.csv", out / "plain-1", alone)
    torch.set_num_threads(threads)
    outcome = Outcome(out, [], [])
    theta0 = out / "spread-0" / "state" / "theta0.safetensors"
    killer = threading.Thread(target=kill_worker, args=("spread-0", theta0), daemon=True)
    killer.start()
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()) as said:
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.setattr(terminal, "PLAIN_LINE_SECONDS", 0.0)
            outcome.failures.append(run_experiment(folder / "experiment.yaml", out, jobs=2))
        outcome.said.append(said.getvalue())
    killer.join(60)
    return outcome


@pytest.fixture
def longer(outcome: Outcome, tmp_path: Path) -> Path:
    """The experiment's runs, with a second round in which 'spread' gains 10 and 12 points, 'plain' 2 and 0."""
    for name, gain in (("spread-0", 0.1), ("spread-1", 0.12), ("plain-0", 0.02), ("plain-1", 0.0)):
        run = tmp_path / "longer" / name
        shutil.copytree(outcome.out / name, run)
        config, (record,) = json.loads((run / "config.json").read_text()), read_rounds(run)
        config["settings"]["rounds"] = 2
        measured = {"test_dice": 0.8, "test_accuracy": 0.5, "pseudo_dice": 0.75 if "spread" in name else None}
        first = record | measured
        second = {**first, "round": 2, "masks_used": 4, "test_dice": 0.8 + gain}
        (run / "config.json").write_text(json.dumps(config))
        (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (first, second)))
    return tmp_path / "longer"
