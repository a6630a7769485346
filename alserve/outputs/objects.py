"""The objects of the mask as a table, one row an object."""

import csv
import io
from collections.abc import Iterable, Iterator

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


def _encode(case: Case) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    probability, label = case.prediction.probability(), case.prediction.label
    for item in case.objects:
        values = item.values(probability)
        measured = (
            item.perimeter,
            *item.centroid,
            *item.box,
            float(values.mean()),
            float(values.max()),
            item.equivalent_diameter,
            item.solidity,
        )
        rows.writerow(
            [
                case.name,
                item.number,
                label,
                item.area,
                *(f"{value:.6g}" for value in measured),
                int(item.touches_border),
            ]
        )
    return text.getvalue().encode(errors="backslashreplace")


def _join(tables: Iterable[bytes]) -> Iterator[bytes]:
    head = ",".join(COLUMNS).encode() + b"\n"
    yield head
    for table in tables:
        yield table.removeprefix(head)


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
