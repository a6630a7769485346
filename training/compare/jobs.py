"""Several runs at once, each in a process of its own, with its threads, GPU and log; one that fails stops no other."""

import json
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict

from alserve.places.urls import Location
from alserve.runtime.device import available_cores
from training.compare.process import Process, run_process
from training.settings import Settings


class RunJob(BaseModel):
    """One run of an experiment; see `training.train.train_run`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    data: Location
    masks: Location | None
    out: Path
    settings: Settings
    device: str
    cache: Path

    def as_json(self) -> str:
        """Return the job as JSON in ASCII, whatever bytes its paths have."""
        return json.dumps(self.model_dump(), default=str, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `as_json` returned."""
        return cls.model_validate(json.loads(text))


LOOK_SECONDS = 2.0
"""Interval at which progress is looked at."""

Done = Callable[[RunJob, str | None], None]
"""Called as each run ends, with what went wrong, if anything did."""


def run_jobs(
    jobs: Sequence[RunJob],
    logs: Path,
    at_once: int,
    done: Done,
    look: Callable[[], None],
) -> None:
    """Run all jobs.

    Args:
        jobs: The runs, in the order in which they start.
        logs: Folder for `NAME.log`, to which a run's output is appended.
        at_once: Number of runs at the same time.
        done: See `Done`.
        look: Called every `LOOK_SECONDS` while they run, and as each ends.
    """
    running: set[Process] = set()
    free: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
    for place in places(at_once, _gpus() if any(job.device != "cpu" for job in jobs) else []):
        free.put(place)

    def work(job: RunJob) -> str | None:
        place = free.get()
        try:
            return run_process(job.as_json(), logs / f"{job.name}.log", {**os.environ, **place}, running)
        finally:
            free.put(place)

    with ThreadPoolExecutor(at_once) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        try:
            left = set(futures)
            while left:
                ended, left = wait(left, LOOK_SECONDS, FIRST_COMPLETED)
                for future in ended:
                    done(futures[future], future.result())
                look()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.kill()  # a run saves its state after every pass
            raise


def places(at_once: int, gpus: Sequence[str]) -> Iterator[dict[str, str]]:
    """Return the environment variables of each of the runs at once: its share of the cores, and a GPU in turn.

    Args:
        at_once: Number of runs.
        gpus: Names of the GPUs, as CUDA_VISIBLE_DEVICES takes them; none on the CPU.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cores() // at_once))
    for number in range(at_once):
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        yield {"OMP_NUM_THREADS": threads, **gpu}


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    return numbers[: torch.cuda.device_count()]
