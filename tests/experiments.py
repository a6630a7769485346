"""A small experiment for the tests, and its outcome."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from drawn import UNTRAINED

ONE_ROUND = {**UNTRAINED, "rounds": 1, "passes": 1}
METHODS = {"spread": {"method": "label-propagation"}, "plain": {"method": "masks-only"}}


def write_config(folder: Path, **values: Any) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def kill_worker(name: str, when: Path) -> None:
    """Kill a run of this process's experiment without warning, as soon as a file exists."""
    while not when.exists():
        time.sleep(0.01)
    (worker,) = [it for it in psutil.Process().children() if f'"name":"{name}"' in " ".join(it.cmdline())]
    worker.kill()


@dataclass(frozen=True)
class Outcome:
    """An experiment with one run made beforehand, alone, and another killed; and the same command again."""

    out: Path
    failures: list[list[str]]
    said: list[str]
