"""Groups of runs compared: areas under curves, tests against random queries, bounds, ablations."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from alserve.measure.evaluate import ClassFigures
from training.report.groups import Group
from training.report.measures import Measure, classes_of, mean_figures, measure_of
from training.report.published import Points, Published
from training.report.statistics import Paired, Spread, area_under, compare_paired, masks_to_reach, spread_of
from training.run.result import RunResult, describe_method

SHARES = (0.95, 0.98)
"""Shares of full supervision's Dice for which the masks needed are reported."""


@dataclass(frozen=True)
class Row:
    """A group's row of the main table. Dice, areas and accuracy are 0 to 1."""

    group: Group
    masks: int
    """Masks used in its last round."""
    dice: Spread | None
    """Test Dice with these, see `Comparison.measure`."""
    found: Spread | None
    """Share of the images with foreground that is found."""
    false_alarms: Spread | None
    """Share of the images without foreground that has a false alarm."""
    accuracy: Spread | None
    area: Spread | None
    """Area under Dice against masks; None for a bound."""
    published: float | None
    """The published area over the same masks; for a bound or an only budget, the published Dice."""
    over_random: Paired | None
    """Areas, or the Dice where all runs have one and the same budget, against those of random queries without
    pseudo-masks."""
    to_reach: tuple[int | None, ...]
    """Masks after which the mean is at a share of our own full supervision; see `SHARES`."""


@dataclass(frozen=True)
class Ablation:
    """Groups that ask and learn in the same way, with settings that differ."""

    title: str
    varied: tuple[str, ...]
    """Names of the settings that differ."""
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Comparison:
    """Groups of runs on the same data.

    Args:
        groups: At least one, each with a finished round.
        published: What was published on these data.
        between: Range of masks over which areas are compared. Default: as far as all finished runs go.
    """

    groups: Sequence[Group]
    published: Published | None = None
    between: tuple[int, int] | None = None

    @cached_property
    def measure(self) -> Measure:
        """The Dice that areas, tests and goals are of: one for all runs, see `training.report.measures.measure_of`."""
        return measure_of(record for group in self.groups for run in group.runs for record in run.rounds)

    @property
    def bounds(self) -> list[Group]:
        """Those without masks and those with all of them."""
        return [group for group in self.groups if group.is_bound]

    @property
    def learners(self) -> list[Group]:
        """Those that ask for masks round by round."""
        return [group for group in self.groups if not group.is_bound]

    @cached_property
    def span(self) -> tuple[int, int] | None:
        """Range of masks over which areas are compared; None where finished runs have no range in common."""
        if self.between:
            return self.between
        curves = [run.points(self.measure.key) for group in self.learners for run in group.runs if run.finished]
        curves = [curve for curve in curves if curve]
        start = max((curve[0][0] for curve in curves), default=0)
        stop = min((curve[-1][0] for curve in curves), default=0)
        return (start, stop) if start < stop else None

    @cached_property
    def only_budget(self) -> int | None:
        """Masks of the one budget that all runs have; None where there are several, and areas are compared."""
        budgets = {masks for group in self.learners for run in group.runs for masks, _ in run.points(self.measure.key)}
        return budgets.pop() if len(budgets) == 1 and self.span is None else None

    @property
    def random(self) -> Group | None:
        """What the others are tested against: random queries, masks only."""
        return next((group for group in self.learners if group.published_as == "random"), None)

    @cached_property
    def full(self) -> float | None:
        """Mean test Dice of full supervision, 0 to 1."""
        curves = [group.mean_curve(self.measure.key) for group in self.bounds if group.method == "all-masks"]
        return max((value for curve in curves for _, value in curve), default=None)

    def rows(self) -> list[Row]:
        """Return the main table."""
        return [self._row(group) for group in self.groups]

    def classes(self) -> dict[str, dict[str, ClassFigures]]:
        """Return by class, and in it by group, what the last round of a group's runs has of it: sums and means."""
        found: dict[str, dict[str, ClassFigures]] = {}
        for group in self.groups:
            runs = [classes_of(run.rounds[-1]) for run in group.runs if run.rounds]
            for name in dict.fromkeys(name for classes in runs for name in classes):
                found.setdefault(name, {})[group.name] = mean_figures([one[name] for one in runs if name in one])
        return found

    def ablations(self) -> list[Ablation]:
        """Find what was varied within a way to ask and learn."""
        found = []
        for method, query in dict.fromkeys((group.method, group.query) for group in self.groups):
            members = [group for group in self.groups if (group.method, group.query) == (method, query)]
            if varied := _varied(members):
                title = describe_method(method) if query == "random" else f"{method}, query {query}"
                found.append(Ablation(title, varied, tuple(members)))
        return found

    def varied(self) -> tuple[str, ...]:
        """Name the settings in which the groups differ."""
        return _varied(self.groups)

    def in_common(self) -> dict[str, object]:
        """Return the settings in which they do not."""
        varied = self.varied()
        return {name: value for name, value in self.groups[0].settings.items() if name not in varied}

    def area(self, run: RunResult) -> float | None:
        """Return a run's area under its test Dice over the common span; None where it does not reach over it."""
        return area_under(run.points(self.measure.key), *self.span) if self.span else None

    def _compared(self, group: Group) -> dict[int, float | None]:
        """Return by seed what methods are tested on: their areas, or the Dice of the only budget."""
        if self.only_budget is None:
            return {run.seed: self.area(run) for run in group.runs}
        return {run.seed: dict(run.points(self.measure.key)).get(self.only_budget) for run in group.runs}

    def _row(self, group: Group) -> Row:
        keys = (self.measure.key, "test_found", "test_false_alarms", "test_accuracy")
        dice, found, false_alarms, accuracy = (next(reversed(group.by_budget(key).values()), None) for key in keys)
        areas = [] if group.is_bound else [self.area(run) for run in group.runs]
        against = self.random if self.random is not group and not group.is_bound else None
        curve = group.mean_curve(self.measure.key)
        goals = [share * self.full for share in SHARES] if self.full and not group.is_bound else []
        return Row(
            group=group,
            masks=max(record["masks_used"] for run in group.runs for record in run.rounds),
            dice=dice,
            found=found,
            false_alarms=false_alarms,
            accuracy=accuracy,
            area=spread_of(areas),
            published=self._published(group),
            over_random=compare_paired(self._compared(group), self._compared(against)) if against else None,
            to_reach=tuple(masks_to_reach(curve, goal) for goal in goals),
        )

    def published_points(self, group: Group) -> Points:
        """Return the published curve of what a group does; empty where nothing was."""
        return self.published.points(group.published_as) if self.published else []

    def _published(self, group: Group) -> float | None:
        points = self.published_points(group)
        if group.is_bound:
            return points[0][1] if points else None
        if self.span:
            return area_under(points, *self.span)
        return None if self.only_budget is None else dict(points).get(self.only_budget)


def _varied(groups: Sequence[Group]) -> tuple[str, ...]:
    names = dict.fromkeys(name for group in groups for name in group.settings)
    return tuple(name for name in names if len({repr(group.settings.get(name)) for group in groups}) > 1)
