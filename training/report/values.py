"""Reports filled in: how measures, times and figures are written in them."""

from pathlib import Path

from markupsafe import Markup

from alserve.drawing import PREDICTED, TRUE
from alserve.html import Filters, data_url, write_filled
from training.report.statistics import Spread
from training.run.result import describe_method

DASH = "\N{EN DASH}"
"""Stands for a value that was not measured."""

COLOURS = {"predicted": PREDICTED, "true": TRUE}
"""Of the outlines in pictures."""


def write_filled_report(path: Path, template: str, **values: object) -> None:
    """Fill in a report's template and write the result; see `alserve.html.write_filled`."""
    filters: Filters = {
        "count_of": count_of,
        "duration": _duration,
        "lower_first": _lower_first,
        "method": describe_method,
        "number": _number,
        "percent": _percent,
        "points": _points,
        "svg": _svg_url,
    }
    write_filled(path, template, package="training", filters=filters, colours=COLOURS, **values)


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f}\N{NARROW NO-BREAK SPACE}%"


def _points(spread: Spread | float | None) -> str:
    """Return a share in percent, without the sign; with its deviation where there is one."""
    if spread is None:
        return DASH
    if not isinstance(spread, Spread):
        return f"{100 * spread:.1f}"
    deviation = "" if spread.std is None else f" \N{PLUS-MINUS SIGN} {100 * spread.std:.1f}"
    return f"{100 * spread.mean:.1f}{deviation}"


def count_of(share: float | None, total: int) -> str:
    """Return a share as a count, such as "3 of 46"; with a decimal where it is a mean that is no whole number."""
    if share is None:
        return DASH
    count = share * total
    return f"{count:.0f} of {total}" if abs(count - round(count)) < 1e-6 else f"{count:.1f} of {total}"  # noqa: PLR2004


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _number(value: object) -> str:
    return DASH if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float | None) -> str:
    """Return a time in its two largest units, such as "1 h 15 min" or "2 min 03 s"."""
    if seconds is None:
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    hours, of_hour = divmod(minutes, 60)
    if hours:
        return _joined(f"{hours} h", f"{of_hour:02} min")
    return _joined(f"{minutes} min", f"{rest:02} s") if minutes else _joined(f"{rest} s")


def _joined(*parts: str) -> str:
    return " ".join(part.replace(" ", "\N{NARROW NO-BREAK SPACE}") for part in parts)


def _svg_url(data: bytes) -> Markup:
    return data_url("image/svg+xml", data)
