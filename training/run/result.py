"""A run as its folder holds it, finished or not. Reading it needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from alserve.paths import printable
from training.run.records import read_config, read_rounds, read_seconds
from training.settings import PUBLISHED_AS, our_name

Round = Mapping[str, Any]
"""A line of `rounds.jsonl`: round, masks_used, pseudo_labels, threshold, asked, and measures from 0 to 1."""

ORDER = ("cams-only", "masks-only", "label-propagation", "consistency", "all-masks")
"""Methods as they stand in tables and figures."""

BOUNDS = ("cams-only", "all-masks")
"""Methods of one round only: no mask at all, and all there are."""


def describe_method(method: str) -> str:
    """Return a method's name, with the paper's where it differs, such as "masks only (published as random)"."""
    ours = our_name(method)
    if ours not in PUBLISHED_AS:
        return ours.replace("-", " ")
    return f"{ours.replace('-', ' ')} (published as {PUBLISHED_AS[ours]})"


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run as its folder holds it.

    Args:
        folder: The run's folder.
        config: Its configuration: source, masks, oracle, fingerprint and settings.
        rounds: One record a finished round.
    """

    folder: Path
    config: Mapping[str, Any] = field(repr=False)
    rounds: Sequence[Round] = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run's folder.

        Raises:
            RunError: It holds no run.
        """
        return cls(folder, read_config(folder), read_rounds(folder))

    @property
    def settings(self) -> Mapping[str, Any]:
        """The run's settings, by their present names."""
        settings: Mapping[str, Any] = self.config["settings"]
        return settings

    @property
    def seed(self) -> int:
        """The seed of everything that is random."""
        return int(self.settings["seed"])

    @property
    def model(self) -> Path:
        """The model of the last finished round."""
        return self.folder / "model.onnx"

    @property
    def report(self) -> Path:
        """The page that shows what it learned; written when all rounds are finished."""
        return self.folder / "report.html"

    @property
    def waiting(self) -> bool:
        """Whether it stopped because a person has masks to draw first; the same call continues it.

        Of masks that are drawn in Label Studio, which is not asked: whether the run is unfinished.
        """
        kind, _, place = self.config.get("oracle", "data").partition(":")
        asked = (kind == "folder" and (Path(place) / "todo.html").is_file()) or kind == "label-studio"
        return asked and not self.finished

    @property
    def seconds(self) -> Mapping[int, float]:
        """The time that passed while the run was running, in seconds, by round; round 0 is what precedes the first.

        What lies between a stop and its continuation does not count.
        """
        return read_seconds(self.folder)

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
