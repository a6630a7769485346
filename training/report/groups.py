"""Finding runs in folders, and grouping those that differ by their seed alone."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alserve.errors import RunError
from training.report.statistics import Spread, spread_of
from training.run.result import BOUNDS, ORDER, RunResult
from training.settings import PUBLISHED_AS


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of the same settings but for the seed.

    Args:
        name: What to call them.
        runs: At least one, by rising seed.
    """

    name: str
    runs: tuple[RunResult, ...]

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What all runs were set to, the seed left out."""
        return {name: value for name, value in self.runs[0].settings.items() if name != "seed"}

    @property
    def method(self) -> str:
        """What they learn from, see `training.settings.Settings`."""
        return str(self.settings["method"])

    @property
    def query(self) -> str:
        """Which images they ask for."""
        return str(self.settings.get("query", "random"))

    @property
    def is_bound(self) -> bool:
        """Whether they use no mask at all, or all there are."""
        return self.method in BOUNDS

    @property
    def published_as(self) -> str:
        """The published method that asks and learns like these, by the name used in `published.json`."""
        if self.method == "masks-only":
            return self.query
        return PUBLISHED_AS.get(self.method, self.method) if self.is_bound or self.query == "random" else ""

    @property
    def details(self) -> str:
        """What the name leaves open: method, query, and the paper's name of the method; "" where it says all."""
        query = "" if self.query == "random" else self.query
        published = "" if query else PUBLISHED_AS.get(self.method, "")
        details = [part for part in (self.method, query) if part not in {"", self.name}]
        if published not in {"", self.name}:
            details.append(f"published as {published}")
        return ", ".join(details)

    def by_budget(self, key: str) -> dict[int, Spread]:
        """Return a measure's spread over the seeds that have it, by masks used, in rising order."""
        values: dict[int, list[float]] = {}
        for run in self.runs:
            for masks, value in run.points(key):
                values.setdefault(masks, []).append(value)
        spreads = {masks: spread_of(values[masks]) for masks in sorted(values)}
        return {masks: spread for masks, spread in spreads.items() if spread}

    def mean_curve(self, key: str) -> list[tuple[int, float]]:
        """Return (masks used, mean over the seeds)."""
        return [(masks, spread.mean) for masks, spread in self.by_budget(key).items()]


def find_runs(folders: Sequence[Path]) -> list[RunResult]:
    """Find the runs in folders, each a run's own or one that holds several, such as an experiment's.

    Raises:
        RunError: A folder holds no run, or the runs learned from different data.
    """
    found: dict[Path, RunResult] = {}
    for folder in folders:
        inside = [folder] if (folder / "config.json").is_file() else _runs_inside(folder)
        if not inside:
            raise RunError(f"{folder}: holds no training run; make one with 'alserve train' or 'alserve experiment'")
        found |= {path.resolve(): RunResult.read(path) for path in inside}
    runs = list(found.values())
    for run in runs:
        if run.config["fingerprint"] != runs[0].config["fingerprint"]:
            raise RunError(
                f"{run.folder}: learned from other data ({run.config['source']}) than {runs[0].folder} "
                f"({runs[0].config['source']}); make a report of each"
            )
    return runs


def _runs_inside(folder: Path) -> list[Path]:
    """List the run folders within; 10 comes after 9."""
    inside = [path.parent for path in folder.glob("*/config.json")]
    parts = {path: re.split(r"(\d+)", path.name) for path in inside}
    return sorted(inside, key=lambda path: [(int(part), "") if part.isdigit() else (0, part) for part in parts[path]])


def group_runs(runs: Sequence[RunResult]) -> tuple[list[Group], list[str]]:
    """Join runs that differ by their seed alone.

    Returns:
        The groups, those of a method together, each with a name of its own; and a line about every run that was left
        out, having settings and seed of another.
    """
    members: dict[str, dict[int, RunResult]] = {}
    notes: list[str] = []
    for run in runs:
        key = json.dumps({**run.settings, "seed": None}, sort_keys=True)
        seeds = members.setdefault(key, {})
        if run.seed in seeds:
            notes.append(f"{run.folder} is left out: {seeds[run.seed].folder} has the same settings and seed.")
        else:
            seeds[run.seed] = run
    groups: list[Group] = []
    for seeds in members.values():
        first = next(iter(seeds.values()))
        name, taken = first.name, {group.name for group in groups}
        if name in taken:
            name = f"{first.folder.absolute().parent.name}/{name}"
        while name in taken:
            name += "'"
        groups.append(Group(name, tuple(seeds[seed] for seed in sorted(seeds))))
    return sorted(groups, key=_place), notes


def _place(group: Group) -> tuple[int, bool, bool]:
    place = ORDER.index(group.method) if group.method in ORDER else len(ORDER)
    return place, group.query != "random", group.name not in {group.method, group.published_as}
