"""Whole runs by two processes: the result of one, of any launcher, of a run that is stopped, killed, or waits."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load
from tables import draw_without_masks
from torch import Tensor

from training.data.synthetic import draw_dataset
from training.run.records import read_rounds

RESULTS = ("rounds.jsonl", "model.onnx", "state/theta0.safetensors", "state/latest.safetensors")
LOST_SECONDS = 60
"""Within which a process ends that another has left alone."""

SETTINGS = {
    "encoder": "resnet18",
    "pretrained": "no",
    "batch": 4,
    "classifier_steps": 3,
    "classifier_cycles": 1,
    "steps": 12,
    "rounds": 1,
    "initial": 2,
    "short_side": 64,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    return draw_dataset(out, seed=1, train_per_class=6, test_per_class=2, size=(96, 128))


def words(table: Path, out: Path, devices: int, **changes: object) -> list[str]:
    """Arguments of `python` that train."""
    chosen = [word for name, value in {**SETTINGS, **changes}.items() for word in ("--set", f"{name}={value}")]
    return [
        "-m",
        "alserve",
        "train",
        *map(str, [table, "--out", out, "--device", "cpu", "--devices", devices]),
        *chosen,
    ]


def python(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    )


def finished(*arguments: str, **environment: str) -> str:
    """What a command says that ends well."""
    with python(*arguments, **environment) as process:
        _, said = process.communicate()
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def together(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by two processes that torchrun has started."""
    out = tmp_path_factory.mktemp("runs") / "together"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    said = finished(*launcher, *words(table, out, 2))
    assert said.count("round 1: ") == said.count(f"{out / 'model.onnx'} is the model") == 1  # the first process's
    return out


def weights(run: Path, name: str) -> Mapping[str, Tensor]:
    return load((run / "state" / f"{name}.safetensors").read_bytes())


def test_two_processes_learn_what_one_does(table: Path, together: Path, tmp_path: Path) -> None:
    """But for rounding, which the optimiser makes larger with every step: it looks at the gradients' signs at first.

    With batches of 6 the weights would be 1e-4 and 3e-4 apart; test_ranks.py is about single steps.
    """
    out = tmp_path / "alone"
    arguments = words(table, out, 1)
    for there in ((out / "timings.jsonl").exists, (out / "state" / "theta0.safetensors").exists):  # before each phase
        press_ctrl_c(arguments, there)
    finished(*arguments)
    for name, bound in (("theta0", 1e-7), ("latest", 1e-4)):
        alone, found = weights(tmp_path / "alone", name), weights(together, name)
        assert found.keys() == alone.keys()
        apart = sum(float((found[key] - alone[key]).float().square().sum()) for key in alone)
        size = sum(float(alone[key].float().square().sum()) for key in alone)
        assert apart <= bound * size, name
    (alone_round,), (found_round,) = read_rounds(tmp_path / "alone"), read_rounds(together)
    assert found_round["asked"] == alone_round["asked"]
    assert found_round["test_dice"] == pytest.approx(alone_round["test_dice"], abs=0.02)


def press_ctrl_c(arguments: Sequence[str], there: Callable[[], bool], others: int = 0) -> None:
    """Start a training; press Ctrl-C, which all processes of a terminal get, when others and something are there."""
    with python(*arguments) as process:
        while len(others_of(process)) < others or not there():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert all(line.startswith("alserve: ") for line in said.splitlines()), said
    assert said.splitlines()[-1] == "alserve: interrupted"
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def others_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "training.distributed.worker" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def kill(arguments: Sequence[str], there: Callable[[], bool], *, first: bool) -> str:
    """Start a training by two processes; kill one when both and something else are there; return the last words."""
    with python(*arguments) as process:
        while not (others := others_of(process)) or not there():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        (other,) = others
        (process if first else other).send_signal(signal.SIGKILL)
        killed = time.monotonic()
        _, said = process.communicate()  # until neither process can say anything more
        assert time.monotonic() - killed < LOST_SECONDS
        assert process.returncode == (-signal.SIGKILL if first else 2)
    assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE
    assert "Traceback" not in said
    return said.splitlines()[-1]


def test_a_run_goes_on_after_one_of_its_processes_was_killed(table: Path, together: Path, tmp_path: Path) -> None:
    """The second before they have met, the first while they train; both are stopped then."""
    out = tmp_path / "killed"
    arguments = words(table, out, 2)
    last = kill(arguments, (out / "config.json").exists, first=False)
    assert last.startswith("alserve: process 2 of 2 was ended by SIGKILL")
    assert last.endswith("; the same command continues the run")
    last = kill(arguments, (out / "state" / "theta0.safetensors").exists, first=True)
    assert last == "alserve: the first process of the training was ended; the same command continues the run"
    press_ctrl_c(arguments, (out / "state" / "latest.safetensors").exists, others=1)
    finished(*arguments)
    for name in RESULTS:
        assert (out / name).read_bytes() == (together / name).read_bytes(), name
    assert {path.name for path in (out / "state").iterdir()} == {path.name for path in (together / "state").iterdir()}


def launched(arguments: Sequence[str]) -> list[int]:
    """Exit codes of both processes of a training, as a launcher starts them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = [{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2} for rank in range(2)]
    meeting = {"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [python(*arguments, **{name: str(v) for name, v in {**place, **meeting}.items()}) for place in places]
    said = [process.communicate()[1] for process in processes]
    assert not any("Traceback" in each for each in said), said
    return [process.returncode for process in processes]


def test_all_processes_end_where_a_person_has_to_draw_and_go_on_then(tmp_path: Path) -> None:
    table, folder, run = draw_without_masks(tmp_path / "data"), tmp_path / "drawing", tmp_path / "run"
    arguments = [*words(table, run, 2, steps=2), "--oracle", f"folder:{folder}"]
    with python(*arguments) as process:
        while not (others := others_of(process)):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        _, said = process.communicate()
    assert process.returncode == 3, said
    assert "Traceback" not in said
    assert not any(other.is_running() for other in others)
    assert launched(arguments) == [3, 3]
    shutil.copytree(table.parent / "masks", folder / "masks" / "images", dirs_exist_ok=True)
    assert launched(arguments) == [0, 0]
    assert (run / "report.html").exists()
