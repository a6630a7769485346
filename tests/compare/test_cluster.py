"""An experiment on a Ray cluster of this machine; and what such a cluster lacks is one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Cli, assert_refused
from experiments import METHODS, ONE_ROUND, Outcome, write_config

from alserve import __version__
from alserve.errors import DeviceError
from training.compare.cluster import _run, share
from training.compare.jobs import RunJob
from training.settings import Settings

TABLES = ("results.md", "plain-0/rounds.jsonl", "plain-0/config.json", "plain-0/state/latest.safetensors")


def job(device: str = "auto") -> RunJob:
    nowhere = Path("nowhere")
    return RunJob(name="a-0", data=nowhere, masks=None, out=nowhere, settings=Settings(), device=device, cache=nowhere)


def test_the_same_tables_as_on_this_machine(folder: Path, outcome: Outcome, tmp_path: Path) -> None:
    """Of four runs three are there already, as after a driver that was killed."""
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    out = tmp_path / "out"
    shutil.copytree(outcome.out, out)
    shutil.rmtree(out / "plain-0")
    (out / "results.md").unlink()
    command = [sys.executable, "-m", "alserve", "experiment", folder / "experiment.yaml", "--out", out]
    done = subprocess.run(
        [*map(str, command), "--engine", "ray", "--jobs", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    assert said[0] == "alserve: 3 of 4 runs were finished before"
    assert all(line.startswith("alserve: ") for line in said), done.stderr
    assert any(line.startswith("alserve: plain-0: round 1: 2 masks") for line in said)
    for name in TABLES:
        assert (out / name).read_bytes() == (outcome.out / name).read_bytes(), name
    assert "round 1, export: " in (out / "logs" / "plain-0.log").read_text()


def test_what_a_task_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    machines: list[dict[str, float]] = [{"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0}, {"memory": 1e9}]
    assert share(machines[:1], [job()], 3) == {"num_cpus": 2, "num_gpus": 0}
    assert share(machines, [job()], 2) == {"num_cpus": 2, "num_gpus": 0.5}
    assert share(machines, [job()], 9) == {"num_cpus": 1, "num_gpus": 1 / 9}
    assert share(machines, [job("cpu")], 1) == {"num_cpus": 4, "num_gpus": 0}
    assert share([{"CPU": 8.0, "GPU": 4.0}], [job("cuda")], 2) == {"num_cpus": 4, "num_gpus": 1.0}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert share(machines, [job("cpu")], 1)["num_cpus"] == 5


@pytest.mark.parametrize(
    ("machines", "device", "threads", "words"),
    [
        ([{"memory": 1e9}], "auto", "1", "no machine of the cluster has a CPU core"),
        ([{"CPU": 4.0}], "auto", "5", "OMP_NUM_THREADS 5: the largest machine of the Ray cluster has 4 cores"),
        ([{"CPU": 4.0}], "cuda", "1", "--device cuda: no machine of the Ray cluster has a GPU"),
    ],
    ids=["no-cores", "few-cores", "no-gpu"],
)
def test_a_cluster_that_cannot_do_it(
    machines: list[dict[str, Any]], device: str, threads: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    with pytest.raises(DeviceError, match=words):
        share(machines, [job(device)], 1)


def test_addresses_that_are_of_no_use(folder: Path, tmp_path: Path, cli: Cli) -> None:
    path = write_config(
        tmp_path, data=str(folder / "data" / "data.csv"), settings=ONE_ROUND, methods={"plain": METHODS["plain"]}
    )
    command = ("experiment", path, "--out", tmp_path / "out")
    assert_refused(cli(*command, "--address", "auto"), "--address names a Ray cluster; add --engine ray")
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    assert_refused(
        cli(*command, "--engine", "ray", "--address", "ray://host:10001"), "ray://host:10001", "HOST:6379 or auto"
    )


def test_a_machine_with_another_alserve_is_one_line(tmp_path: Path) -> None:
    failure = _run(job().as_json(), str(tmp_path / "log"), str(tmp_path), 1, "0.1")
    assert failure == f"its machine has alserve {__version__}, the one that asks 0.1; install the same on all"
    assert not list(tmp_path.iterdir())
