"""Figures of several runs: a measure against the masks used, or of each method where all used the same number."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, Self

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

DICE = "Test Dice (%)"

LEAST_SPAN = 20.0
"""Percentage points that the axis of a measure spans at least."""

OVER_FULL = 101.0
"""Where the axis of a measure ends at most: a mark at 100 % is whole."""

MOST_TICKS = 12
"""Largest number of budgets that are each marked on the axis."""

INK, FAINT = ("#3b3744", "#dcd9e0"), ("#e2dfe6", "#3a3d47")
"""Of text and of grid lines: on a light ground, on a dark one."""
COLOURS = (
    ("#6d3f93", "#1f78a8", "#c0731a", "#2f8a57", "#b0417a", "#5b6270"),
    ("#c3a3e6", "#7cc4e8", "#f0b96b", "#8fd3a4", "#f09ac0", "#b4bac6"),
)
"""Of the curves: on a light ground, on a dark one. Marks tell them apart as well."""
MARKS = ("o", "s", "^", "D", "v", "P", "X")

DOTS = (0, (1, 2))
DASHES = (0, (5, 4))

PNG_DPI = 160


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Args:
        name: What the legend calls it.
        points: (masks used, mean, standard deviation), 0 to 1, in order of the masks; 0 where there is no spread.
        published: (masks used, value), 0 to 1: drawn dotted behind it.
        look: Curves of the same number have the same colour and mark in every figure.
    """

    name: str
    points: Sequence[tuple[int, float, float]]
    intervals: Sequence[tuple[float, float] | None] = ()
    """Of each point, (low, high), 0 to 1: drawn as a bar. Empty for none."""
    published: Sequence[tuple[int, float]] = ()
    look: int = 0

    @classmethod
    def of_rounds(cls, name: str, rounds: Sequence[Mapping[str, Any]], key: str = "test_dice", look: int = 0) -> Self:
        """Take the test Dice of one run's rounds, with its interval, and pass over those where it was not measured.

        Args:
            name: What the legend calls it.
            rounds: What `rounds.jsonl` holds.
            key: Name of the Dice there.
            look: See `Curve`.
        """
        measured = [record for record in rounds if record.get(key) is not None]
        return cls(
            name,
            [(record["masks_used"], record[key], 0.0) for record in measured],
            [_interval(record, key) for record in measured],
            look=look,
        )


def _interval(record: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    """Return the interval of a round's Dice: that of the images with foreground, which is all where none is empty."""
    if key == "test_dice" and record.get("test_false_alarms") is not None:
        return None
    found = record.get("test_foreground_dice_interval")
    return (found[0], found[1]) if found else None


@dataclass(frozen=True)
class Dots:
    """One row of a figure: what the runs of a method reached with the same number of masks.

    Args:
        name: What the row is called.
        values: 0 to 1, of at least one run.
        look: As a curve's.
    """

    name: str
    values: Sequence[float]
    look: int = 0


def draw_curves(
    curves: Sequence[Curve],
    *,
    measure: str = DICE,
    bounds: Mapping[str, float] | None = None,
    published_bounds: Mapping[str, float] | None = None,
    dark: bool = False,
    kind: Literal["svg", "png"] = "svg",
) -> bytes:
    """Plot a measure against the masks used.

    Args:
        curves: At least one. A single one gets its values written on, several get a legend.
        measure: What the values are, in percent.
        bounds: Value, 0 to 1, by name: dashed lines.
        published_bounds: The same, dotted, with their names at the right.
        dark: Draw for a dark ground.
        kind: An SVG has a transparent ground, a PNG a white one, or a black one.

    Returns:
        The file; the same input gives the same bytes.
    """
    with _style(dark=dark):
        figure = Figure(figsize=(8, 3.7 if len(curves) == 1 else 4.4), layout="constrained")
        axes = figure.subplots()
        for curve in curves:
            _draw_curve(axes, curve, dark=dark, values=len(curves) == 1)
        _draw_bounds(axes, bounds or {}, DASHES, at_right=False)
        _draw_bounds(axes, published_bounds or {}, DOTS, at_right=True)
        axes.set(xlabel="Masks used", ylabel=measure)
        axes.margins(x=0.06, y=0.22 if len(curves) == 1 else 0.08)
        axes.set_ylim(*_at_least(LEAST_SPAN, *axes.get_ylim()))
        used = sorted({point[0] for curve in curves for point in curve.points})
        axes.xaxis.set_major_locator(FixedLocator(used) if len(used) <= MOST_TICKS else MaxNLocator(integer=True))
        _clear(axes, "y", dark=dark)
        if any(curve.published for curve in curves):
            axes.plot([], [], color=INK[dark], linestyle=DOTS, linewidth=1.6, label="published")
        if len(axes.get_legend_handles_labels()[0]) > 1:
            figure.legend(frameon=False, loc="outside upper left", ncols=3, handlelength=2.6)
        return _save(figure, dark=dark, kind=kind)


def draw_dots(
    rows: Sequence[Dots],
    *,
    measure: str = DICE,
    dark: bool = False,
    kind: Literal["svg", "png"] = "svg",
) -> bytes:
    """Plot a measure of runs that all used the same number of masks: a row a method, a dot a run, a mark at their mean.

    Args:
        rows: At least one, the first on top.
        measure: What the values are, in percent.
        dark: Draw for a dark ground.
        kind: See `draw_curves`.

    Returns:
        The file; the same input gives the same bytes.
    """
    with _style(dark=dark):
        figure = Figure(figsize=(8, 1.1 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(rows):
            colour, mark = _look(row.look, dark=dark)
            values, mean = [100 * value for value in row.values], 100 * fmean(row.values)
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=4, alpha=0.55)
            axes.plot([mean], [place], mark, color=colour, markersize=9)
            axes.annotate(f"{mean:.1f}", (1, place), (6, 0), ("axes fraction", "data"), "offset points", va="center")
        axes.set(xlabel=measure, yticks=range(len(rows)), yticklabels=[row.name for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.set_xlim(*_at_least(LEAST_SPAN, *axes.get_xlim()))
        _clear(axes, "x", dark=dark)
        return _save(figure, dark=dark, kind=kind)


def _at_least(span: float, low: float, high: float) -> tuple[float, float]:
    """Return an axis's range within 0 to 100 where the values are, and widened to a span about its middle.

    A narrow one would show noise as a collapse.
    """
    low, high = max(low, 0.0), min(high, OVER_FULL)
    if high - low >= span:
        return low, high
    middle = (low + high) / 2
    low = min(max(middle - span / 2, 0.0), OVER_FULL - span)
    return low, low + span


@contextmanager
def _style(*, dark: bool) -> Iterator[None]:
    style: dict[Any, Any] = {
        "svg.hashsalt": "alserve",
        "font.size": 10.5,
        "text.color": INK[dark],
        "axes.facecolor": "none",
        "axes.labelcolor": INK[dark],
        "axes.edgecolor": FAINT[dark],
        "xtick.color": INK[dark],
        "ytick.color": INK[dark],
    }
    with rc_context(style):
        yield


def _clear(axes: Axes, grid: Literal["x", "y"], *, dark: bool) -> None:
    """Leave of the frame the lines that values are read by."""
    axes.grid(axis=grid, color=FAINT[dark], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def _save(figure: Figure, *, dark: bool, kind: Literal["svg", "png"]) -> bytes:
    buffer = io.BytesIO()
    if kind == "svg":
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    else:
        ground = "black" if dark else "white"
        figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor=ground, metadata={"Software": None})
    return buffer.getvalue()


def _look(number: int, *, dark: bool) -> tuple[str, str]:
    """Return colour and mark."""
    return COLOURS[dark][number % len(COLOURS[dark])], MARKS[number % len(MARKS)]


def _draw_curve(axes: Axes, curve: Curve, *, dark: bool, values: bool) -> None:
    colour, mark = _look(curve.look, dark=dark)
    masks = [point[0] for point in curve.points]
    means = [100 * point[1] for point in curve.points]
    if any(point[2] for point in curve.points):
        low = [100 * (mean - spread) for _, mean, spread in curve.points]
        high = [100 * (mean + spread) for _, mean, spread in curve.points]
        axes.fill_between(masks, low, high, color=colour, alpha=0.16, linewidth=0)
    if curve.published:
        behind = [(place, 100 * value) for place, value in curve.published]
        axes.plot(*zip(*behind, strict=True), color=colour, linestyle=DOTS, linewidth=1.6, alpha=0.85, zorder=1.5)
    for place, mean, interval in zip(masks, means, curve.intervals, strict=False):
        if interval is not None:
            reach = [[max(0.0, mean - 100 * interval[0])], [max(0.0, 100 * interval[1] - mean)]]
            axes.errorbar([place], [mean], reach, color=colour, elinewidth=1.2, capsize=3.5, capthick=1.2, alpha=0.75)
    axes.plot(masks, means, color=colour, marker=mark, markersize=6, linewidth=2.2, label=curve.name, clip_on=False)
    for place, mean, following in zip(masks, means, [*means[1:], 0.0], strict=True) if values else ():
        beside = (8, -14 if following > mean else 6)  # clear of the bar and of the line to the next point
        text, offset, side = f"{mean:.1f}", *((beside, "left") if any(curve.intervals) else ((0, 9), "center"))
        axes.annotate(text, (place, mean), offset, textcoords="offset points", ha=side, weight="bold")


def _draw_bounds(axes: Axes, bounds: Mapping[str, float], line: Any, *, at_right: bool) -> None:  # noqa: ANN401
    for name, value in bounds.items():
        axes.axhline(100 * value, color="0.55", linewidth=1.1, linestyle=line)
        axes.annotate(
            f"{name} {100 * value:.1f}",
            (int(at_right), 100 * value),
            (-2 if at_right else 2, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right" if at_right else "left",
            fontsize=9.5,
        )
