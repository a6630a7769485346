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
from forked import Started
from safetensors.torch import load
from server import is_alive
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
    """A command that trains, after `alserve`."""
    chosen = [word for name, value in {**SETTINGS, **changes}.items() for word in ("--set", f"{name}={value}")]
    return ["train", *map(str, [table, "--out", out, "--device", "cpu", "--devices", devices]), *chosen]


@pytest.fixture(scope="module")
def together(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by two processes that torchrun has started."""
    out = tmp_path_factory.mktemp("runs") / "together"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "alserve", *words(table, out, 2)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr
    assert done.returncode == 0, said
    assert said.count("round 1: ") == said.count(f"{out / 'model.onnx'} is the model") == 1  # the first process's
    return out


def weights(run: Path, name: str) -> Mapping[str, Tensor]:
    return load((run / "state" / f"{name}.safetensors").read_bytes())


def finish(arguments: Sequence[str], log: Path) -> None:
    command = Started(arguments, log)
    assert command.end() == 0, command.said()


def test_two_processes_learn_what_one_does(table: Path, together: Path, tmp_path: Path) -> None:
    """But for rounding, which the optimiser makes larger with every step: it looks at the gradients' signs at first.

    With batches of 6 the weights would be 1e-4 and 3e-4 apart; test_ranks.py is about single steps.
    """
    out = tmp_path / "alone"
    arguments = words(table, out, 1)
    for there in ((out / "timings.jsonl").exists, (out / "state" / "theta0.safetensors").exists):  # before each phase
        press_ctrl_c(arguments, tmp_path / "log", there)
    finish(arguments, tmp_path / "log")
    for name, bound in (("theta0", 1e-7), ("latest", 1e-4)):
        alone, found = weights(tmp_path / "alone", name), weights(together, name)
        assert found.keys() == alone.keys()
        apart = sum(float((found[key] - alone[key]).float().square().sum()) for key in alone)
        size = sum(float(alone[key].float().square().sum()) for key in alone)
        assert apart <= bound * size, name
    (alone_round,), (found_round,) = read_rounds(tmp_path / "alone"), read_rounds(together)
    assert found_round["asked"] == alone_round["asked"]
    assert found_round["test_dice"] == pytest.approx(alone_round["test_dice"], abs=0.02)


def press_ctrl_c(arguments: Sequence[str], log: Path, there: Callable[[], bool], others: int = 0) -> None:
    """Start a training; press Ctrl-C, which all processes of a terminal get, when others and something are there."""
    command = Started(arguments, log)
    while len(others_of(command)) < others or not there():
        assert command.runs(), command.said()
        time.sleep(0.01)
    children = psutil.Process(command.pid).children(recursive=True)
    os.killpg(command.pid, signal.SIGINT)
    assert command.end() == 130, command.said()
    said = command.said().splitlines()
    assert all(line.startswith("alserve: ") for line in said), said
    assert said[-1] == "alserve: interrupted"
    assert psutil.wait_procs(children, LOST_SECONDS)[1] == []


def others_of(command: Started) -> list[psutil.Process]:
    return [child for child in psutil.Process(command.pid).children() if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "training.distributed.worker" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def kill(arguments: Sequence[str], log: Path, there: Callable[[], bool], *, first: bool) -> str:
    """Start a training by two processes; kill one when both and something else are there; return the last words."""
    command = Started(arguments, log)
    while not (others := others_of(command)) or not there():
        assert command.runs(), command.said()
        time.sleep(0.01)
    (other,) = others
    (psutil.Process(command.pid) if first else other).kill()
    killed = time.monotonic()
    assert command.end() == (-signal.SIGKILL if first else 2), command.said()
    other.wait(LOST_SECONDS)
    assert time.monotonic() - killed < LOST_SECONDS
    assert "Traceback" not in command.said()
    return command.said().splitlines()[-1]


def test_a_run_goes_on_after_one_of_its_processes_was_killed(table: Path, together: Path, tmp_path: Path) -> None:
    """The second before they have met, the first while they train; both are stopped then."""
    out = tmp_path / "killed"
    arguments, log = words(table, out, 2), tmp_path / "log"
    last = kill(arguments, log, (out / "config.json").exists, first=False)
    assert last.startswith("alserve: process 2 of 2 was ended by SIGKILL")
    assert last.endswith("; the same command continues the run")
    last = kill(arguments, log, (out / "state" / "theta0.safetensors").exists, first=True)
    assert last == "alserve: the first process of the training was ended; the same command continues the run"
    press_ctrl_c(arguments, log, (out / "state" / "latest.safetensors").exists, others=1)
    finish(arguments, log)
    for name in RESULTS:
        assert (out / name).read_bytes() == (together / name).read_bytes(), name
    assert {path.name for path in (out / "state").iterdir()} == {path.name for path in (together / "state").iterdir()}


def launched(arguments: Sequence[str], folder: Path) -> list[int | None]:
    """Exit codes of both processes of a training, as a launcher starts them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meeting = {"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    sizes = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    places = [{"RANK": rank, "LOCAL_RANK": rank} for rank in range(2)]
    both = [Started(arguments, folder / f"log-{place['RANK']}", **meeting, **sizes, **place) for place in places]
    codes = [command.end() for command in both]
    assert not any("Traceback" in command.said() for command in both), [command.said() for command in both]
    return codes


def test_all_processes_end_where_a_person_has_to_draw_and_go_on_then(tmp_path: Path) -> None:
    table, folder, run = draw_without_masks(tmp_path / "data"), tmp_path / "drawing", tmp_path / "run"
    arguments = [*words(table, run, 2, steps=2), "--oracle", f"folder:{folder}"]
    command = Started(arguments, tmp_path / "log")
    while not (others := others_of(command)):
        assert command.runs(), command.said()
        time.sleep(0.01)
    assert command.end() == 3, command.said()
    assert "Traceback" not in command.said()
    assert not any(is_alive(other) for other in others)
    assert launched(arguments, tmp_path) == [3, 3]
    shutil.copytree(table.parent / "masks", folder / "masks" / "images", dirs_exist_ok=True)
    assert launched(arguments, tmp_path) == [0, 0]
    assert (run / "report.html").exists()
