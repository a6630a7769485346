"""Experiments as a user runs them: several methods and seeds, killed, hindered, continued."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import Cli, assert_refused
from experiments import METHODS, ONE_ROUND, Outcome, write_config

from alserve.runtime.device import available_cores
from training.compare.jobs import RunJob, places
from training.settings import Settings


def test_a_run_that_is_killed_stops_no_other_and_continues(outcome: Outcome) -> None:
    log = outcome.out / "logs" / "spread-0.log"
    assert outcome.failures == [[f"spread-0 failed: ended by SIGKILL (see {log})"], []]
    assert "1 of 4 runs were finished before" in outcome.said[0]
    assert all(f"alserve: {name}: round 1: 2 masks" in outcome.said[0] for name in ("spread-1", "plain-0"))
    assert all(f"{rounds} of 3 rounds, " in outcome.said[0] for rounds in (0, 3))
    assert "3 of 4 runs were finished before" in outcome.said[1]
    assert "1 of 1 rounds, " in outcome.said[1]
    assert "alserve: spread-0: round 1: 2 masks" in outcome.said[1]
    assert "alserve: spread-1: round 1: 2 masks" not in outcome.said[1]
    assert "| spread (label-propagation) | 2 |" in (outcome.out / "results.md").read_text()
    assert "round 1, export: " in log.read_text()


def test_what_runs_share_is_what_each_would_have_made(outcome: Outcome) -> None:
    def theta0(name: str) -> bytes:
        return (outcome.out / name / "state" / "theta0.safetensors").read_bytes()

    shared = {file.read_bytes() for file in (outcome.out / "cache").glob("theta0-*.safetensors")}
    assert shared == {theta0("spread-0"), theta0("spread-1")}
    assert theta0("plain-0") == theta0("spread-0")
    assert theta0("plain-1") == theta0("spread-1")  # made alone
    timings = [(outcome.out / name / "timings.jsonl").read_text() for name in ("spread-0", "plain-0")]
    assert ["classifier" in lines for lines in timings].count(True) == 1
    assert ['"pass 1"' in lines for lines in timings].count(True) == 1
    assert len(list((outcome.out / "cache").glob("colours-*.npz"))) == 1


def test_a_run_that_fails_is_named_at_the_end(folder: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "out" / "plain-0").mkdir(parents=True)
    (tmp_path / "out" / "plain-0" / "notes.txt").write_text("mine")
    path = write_config(tmp_path, settings=ONE_ROUND, methods={"plain": METHODS["plain"]})
    code, _, said = cli("experiment", path, "--out", tmp_path / "out", "--data", folder / "data" / "data.csv")
    assert code == 1
    assert f"alserve: plain-0 failed: {tmp_path / 'out' / 'plain-0'}: is not empty" in said.splitlines()[-1]


def test_the_figures_of_a_finished_run_are_enough(outcome: Outcome, folder: Path, tmp_path: Path, cli: Cli) -> None:
    for run in outcome.out.glob("*-[01]"):
        (tmp_path / "out" / run.name).mkdir(parents=True)
        for name in ("config.json", "rounds.jsonl", "timings.jsonl"):
            shutil.copy(run / name, tmp_path / "out" / run.name)
    code, _, said = cli("experiment", folder / "experiment.yaml", "--out", tmp_path / "out")
    assert (code, said.splitlines()[0]) == (0, "alserve: 4 of 4 runs were finished before")
    results = [(out / "results.md").read_text() for out in (tmp_path / "out", outcome.out)]
    assert results[0] == results[1]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_of_an_earlier_version_one_model_is_needed_beside_the_figures(
    outcome: Outcome, tmp_path: Path, cli: Cli
) -> None:
    """Its runs do not say what their classes are."""
    for run in outcome.out.glob("*-[01]"):
        (tmp_path / "out" / run.name).mkdir(parents=True)
        config = json.loads((run / "config.json").read_text())
        del config["classes"], config["train_images"]
        (tmp_path / "out" / run.name / "config.json").write_text(json.dumps(config))
        shutil.copy(run / "rounds.jsonl", tmp_path / "out" / run.name)
    assert_refused(cli("report", tmp_path / "out"), "config.json names no classes", "the report needs one")
    shutil.copy(outcome.out / "plain-0" / "model.onnx", tmp_path / "out" / "plain-0")
    assert cli("report", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "results.md").read_text() == (outcome.out / "results.md").read_text()


def test_a_worker_ends_with_the_process_that_started_it() -> None:
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


def test_a_job_is_passed_on_whatever_its_paths_are(tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"\xff \n")
    job = RunJob(name="a-0", data=place, masks=None, out=place, settings=Settings(), device="cpu", cache=place)
    text = job.as_json()
    assert text.isascii()
    assert RunJob.from_json(text) == job.model_copy(update={"data": str(place)})


def test_a_device_that_is_not_there(folder: Path, tmp_path: Path, cli: Cli) -> None:
    result = cli("experiment", folder / "experiment.yaml", "--out", tmp_path / "out", "--device", "tpu")
    assert_refused(result, "--device tpu", "auto", "cuda")
