"""Trainings in processes of their own, to be stopped and killed; torch, which takes seconds to load, is there at once.

They are forked from a process that has imported it.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from alserve.cli import main
from training.settings import Settings
from training.train import train_run

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([train_run.__module__, main.__module__])


def kill_when(there: Callable[[], bool], data: Path, out: Path, settings: Settings, oracle: str = "data") -> int:
    """Start a run, and kill it without warning as soon as something is there; return its exit code."""
    assert not there()
    process = _PROCESSES.Process(target=_train, args=(data, out, settings, oracle))
    process.start()
    while not there() and process.is_alive():
        time.sleep(0.002)
    process.kill()
    process.join()
    assert there(), f"the run ended before, with exit code {process.exitcode}"
    assert process.exitcode is not None
    return process.exitcode


def _train(data: Path, out: Path, settings: Settings, oracle: str) -> None:
    _start_others_as_usual()
    train_run(data, out, settings, oracle=oracle)


def _start_others_as_usual() -> None:
    """Let the processes of a loader be copies of this one, as they are in a run, and none of a server of its own."""
    multiprocessing.set_start_method(None, force=True)


class Started:
    """A command line that was started with one thread, as the first process of a group of its own.

    Args:
        words: The arguments of `alserve`.
        log: File for what it says.
        environment: Variables beside those of the tests.
    """

    def __init__(self, words: Sequence[object], log: Path, **environment: object) -> None:
        self.log = log
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in environment.items()}}
        arguments = (list(map(str, words)), log, variables)
        self._process = _PROCESSES.Process(target=_run, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def runs(self) -> bool:
        return self._process.is_alive()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self) -> int | None:
        """Wait for its end; return the exit code."""
        self._process.join()
        return self._process.exitcode


def _run(words: Sequence[str], log: Path, variables: Mapping[str, str]) -> None:
    os.setpgid(0, 0)
    _start_others_as_usual()
    with log.open("wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(variables)
    torch.set_num_threads(1)
    sys.argv = ["alserve", *words]
    main()
