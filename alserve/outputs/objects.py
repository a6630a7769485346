"""The objects of the mask as a table, one row an object."""

import csv
import io
from collections.abc import Iterable, Iterator

from alserve.objects import means_and_maxima
from alserve.outputs import OUTPUTS, Case, Joined, Output

COLUMNS = (
    "image",
    "object",
    "class",
    "area",
    "perimeter",
    "centroid_x",
    "centroid_y",
    "left",
    "top",
    "width",
    "height",
    "mean_probability",
    "max_probability",
    "equivalent_diameter",
    "solidity",
    "touches_border",
)
"""Lengths in pixels, areas in square pixels, probabilities and solidity from 0 to 1; see `alserve.objects`."""

IN_MICROMETRES = ("area_um2", "perimeter_um", "equivalent_diameter_um")
"""Where these are asked for: the same in micrometres and square micrometres, or nothing for want of a pixel's size."""


def _text(values: Iterable[float]) -> list[str]:
    return [f"{value:.6g}" for value in values]


def _encode(case: Case) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    side = case.um_per_pixel
    asked = case.post.um_per_pixel is not None
    rows.writerow(COLUMNS + IN_MICROMETRES if asked else COLUMNS)
    label = case.prediction.label
    measured = means_and_maxima(case.objects, case.prediction.probability())
    for item, (mean, most) in zip(case.objects, measured, strict=True):
        lengths = (item.perimeter, *item.centroid, *item.box, mean, most, item.equivalent_diameter, item.solidity)
        known = (case.name, item.number, label, item.area)
        row = [*known, *_text(lengths), int(item.touches_border)]
        if side is not None:
            row += _text((item.area * side**2, item.perimeter * side, item.equivalent_diameter * side))
        elif asked:
            row += [""] * len(IN_MICROMETRES)
        rows.writerow(row)
    return text.getvalue().encode(errors="backslashreplace")


def _join(tables: Iterable[bytes]) -> Iterator[bytes]:
    """Keep the titles of the first table only."""
    for place, table in enumerate(tables):
        titles, line, rows = table.partition(b"\n")
        yield rows if place else titles + line + rows


OUTPUTS.add("objects")(
    Output(
        "the objects of the mask, a row each: area, perimeter, centroid, box, probability and so on: CSV",
        "objects",
        _encode,
        ".csv",
        "text/csv",
        joined=Joined("objects.csv", _join),
    )
)
