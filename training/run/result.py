"""What a run's folder says, finished or not. Reading it needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from alserve.paths import printable
from training.run.records import read_config, read_rounds

Round = Mapping[str, Any]
"""A line of `rounds.jsonl`: round, masks_used, pseudo_labels, threshold, asked, and measures from 0 to 1."""


ORDER = ("wsl", "random", "label-propagation", "full")
"""Methods as they stand in tables and figures."""
BOUNDS = ("wsl", "full")
"""Methods of one round only: no mask at all, and all there are."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """What one run's folder says."""

    folder: Path
    config: Mapping[str, Any]
    rounds: Sequence[Round]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run's folder.

        Raises:
            RunError: It holds no run.
        """
        return cls(folder, read_config(folder), read_rounds(folder))

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the run was set to."""
        settings: Mapping[str, Any] = self.config["settings"]
        return settings

    @property
    def seed(self) -> int:
        """What drove everything random."""
        return int(self.settings["seed"])

    @property
    def model(self) -> Path:
        """The model of the last finished round."""
        return self.folder / "model.onnx"

    @property
    def name(self) -> str:
        """The folder's name, without the seed that an experiment ends it with."""
        return printable(self.folder.absolute().name).removesuffix(f"-{self.seed}")

    @property
    def finished(self) -> bool:
        """Whether all its rounds are done."""
        wanted = 1 if self.settings["method"] in BOUNDS else self.settings["rounds"]
        return len(self.rounds) >= wanted

    def points(self, key: str) -> list[tuple[int, float]]:
        """Return (masks used, measure) of the rounds in which it was measured."""
        return [(record["masks_used"], record[key]) for record in self.rounds if record.get(key) is not None]
