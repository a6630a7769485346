"""The page, the figures and the tables that compare several runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from alserve.errors import RunError
from alserve.files import write_atomic
from alserve.predictor import load
from training.report.cases import AskedRound, asked_rounds, open_dataset
from training.report.comparison import SHARES, Comparison
from training.report.figures import Curve, Dots, draw_curves, draw_dots
from training.report.groups import Group, group_runs
from training.report.published import Points, published_for
from training.report.values import write_filled_report
from training.run.result import RunResult

PSEUDO_DICE = "Dice of the pseudo-masks (%)"

MOST_CLASSES = 20
"""Largest number of classes that are each shown in a table."""

MOST_ASKED = 24
"""Number of the images that the oracle was asked for that are shown at most, of each group."""


def report_several(runs: Sequence[RunResult], out: Path, *, title: str, between: tuple[int, int] | None = None) -> Path:
    """Write `report.html`, `results.md` and `figures/` of runs on the same data.

    Args:
        runs: At least one with a finished round. Of others the figures alone may be there, without a model.
        out: Folder for all of it.
        title: Heading.
        between: Range of masks over which areas are compared. Default: as far as all finished runs go.

    Returns:
        The page.

    Raises:
        RunError: The runs are of an earlier version, which noted no classes, and none has a model.
    """
    begun = [run for run in runs if run.rounds]
    groups, notes = group_runs(begun)
    notes += [
        f"{run.folder} is not finished: round {len(run.rounds) + 1} comes next." for run in runs if not run.finished
    ]
    classes, train_images = _learned_from(begun)
    comparison = Comparison(groups, published_for(classes, train_images), between)
    figures = _figures(comparison)
    for name, draw in figures.items():
        for kind in ("svg", "png"):
            write_atomic(out / "figures" / f"{name}.{kind}", draw(kind=kind))
    values: dict[str, Any] = {
        "title": title,
        "classes": classes,
        "train_images": train_images,
        "comparison": comparison,
        "shares": SHARES,
        "failures": list(_failures(comparison)),
        "most_classes": MOST_CLASSES,
        "notes": notes,
    }
    page = out / "report.html"
    write_filled_report(
        page,
        "comparison.html.jinja",
        **values,
        figures={name: [draw(dark=dark) for dark in (False, True)] for name, draw in figures.items()},
        galleries=list(_galleries(groups, classes)),
    )
    write_filled_report(out / "results.md", "comparison.md.jinja", **values)
    return page


def _learned_from(runs: Sequence[RunResult]) -> tuple[tuple[str, ...], int]:
    """Return the classes of the runs' data, and the number of training images."""
    for run in runs:
        if run.config["classes"]:
            return tuple(run.config["classes"]), run.config["train_images"]
    if (first := next(filter(_has_model, runs), None)) is None:
        raise RunError(
            f"{runs[0].folder}: config.json names no classes, as of an earlier version, and no run has its model.onnx; "
            "the report needs one"
        )
    spec = load(first.model, device="cpu").spec
    return spec.classes, spec.provenance.train_images


def _has_model(run: RunResult) -> bool:
    return run.model.is_file()


def _failures(comparison: Comparison) -> Iterator[str]:
    """Say in words in which classes no run of any group finds anything."""
    for name, by_group in comparison.classes().items():
        images = max(one.with_foreground for one in by_group.values())
        if images and not any(one.found for one in by_group.values()):
            yield f"{name}: none of {images} images with foreground is found, whatever the method."


def _figures(comparison: Comparison) -> dict[str, Callable[..., bytes]]:
    """Return a function that draws each figure, by the figure's name; what was not measured has none."""
    found: dict[str, Callable[..., bytes]] = {}
    dice = comparison.measure
    if comparison.only_budget is not None:
        for name, key, measure in (("dice", dice.key, f"{dice.name} (%)"), ("pseudo", "pseudo_dice", PSEUDO_DICE)):
            if dots := _dots(comparison, key):
                found[name] = partial(draw_dots, dots, measure=measure)
        return found
    if curves := _measured(comparison, dice.key):
        ends = {group: group.mean_curve(dice.key) for group in comparison.bounds}
        behind = {group: comparison.published_points(group) for group in comparison.bounds}
        found["dice"] = partial(
            draw_curves,
            [replace(curve, published=_up_to(curve, points)) for curve, points in curves],
            measure=f"{dice.name} (%)",
            bounds={group.name: points[-1][1] for group, points in ends.items() if points},
            published_bounds={f"{group.name}, published": points[0][1] for group, points in behind.items() if points},
        )
    if pseudo := _measured(comparison, "pseudo_dice"):
        found["pseudo"] = partial(draw_curves, [curve for curve, _ in pseudo], measure=PSEUDO_DICE)
    return found


def _dots(comparison: Comparison, key: str) -> list[Dots]:
    """Return a measure of every run, by group."""
    values = [[value for run in group.runs for _, value in run.points(key)] for group in comparison.learners]
    named = zip(comparison.learners, values, strict=True)
    return [Dots(group.name, reached, look) for look, (group, reached) in enumerate(named) if reached]


def _measured(comparison: Comparison, key: str) -> list[tuple[Curve, Points]]:
    """Return a measure's curve of each group that has it, and what was published of the first group of its kind."""
    found = []
    shown: set[str] = set()
    for look, group in enumerate(comparison.learners):
        points = [(masks, spread.mean, spread.std or 0.0) for masks, spread in group.by_budget(key).items()]
        if points:
            behind = [] if group.published_as in shown else comparison.published_points(group)
            found.append((Curve(group.name, points, look=look), behind))
            shown.add(group.published_as)
    return found


def _up_to(curve: Curve, published: Points) -> Points:
    """Cut what was published at the curve's last budget."""
    return [point for point in published if point[0] <= curve.points[-1][0]]


def _galleries(groups: Sequence[Group], classes: Sequence[str]) -> Iterator[tuple[Group, RunResult, list[AskedRound]]]:
    """Show what the first run of every group with a model asked for, where its data set is still where it was."""
    firsts = [(group, next(filter(_has_model, group.runs), None)) for group in groups if not group.is_bound]
    asking = [(group, run) for group, run in firsts if run]
    dataset = open_dataset(asking[0][1], classes) if asking else None
    if dataset is None:
        return
    for group, run in asking:
        rounds = asked_rounds(load(run.model, device="cpu"), dataset, run, MOST_ASKED)
        if rounds:
            yield group, run, rounds
