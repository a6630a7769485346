"""What a folder run found as a whole: one table of all images, one page, and the files that outputs have for all.

Each is made of the manifest's rows and of the images' own files, at the end of a run and of a merge.
"""

import csv
import io
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alserve.errors import RunError
from alserve.folder.manifest import ManifestRow
from alserve.html import fill
from alserve.outputs import OUTPUTS
from alserve.parallel import ordered_map
from alserve.places.place import Place
from alserve.terminal import say

TABLE, PAGE = "summary.csv", "summary.html"

MOST_BYTES = 1 << 31
"""Bytes of an image's file that is joined to one for all; more are no file of ours."""

BINS = 20
"""Bars of a histogram; of one of whole numbers, at most."""

SHOWN, LISTED = 4, 20
"""Images of a kind that the page shows, and failed ones that it lists, at most."""

_NOT_COUNTED = -1
"""Objects of an image that is too large to count them."""

PICTURES = ("overlay", "mask", "cutout", "cam")
"""Outputs that the page shows an image by: the first of them that was saved."""


class Done(NamedTuple):
    """An image of a run."""

    row: ManifestRow
    """What the manifest says of it."""
    place: Place
    """Where its files are."""

    @property
    def score(self) -> float:
        """Score of its class, 0 to 1."""
        return float(self.row["scores"][self.row["label"]])

    def target(self, word: str) -> str:
        """Return the name of its file of an output."""
        return OUTPUTS[word].file_name(self.row["name"])


def files_of_run(save: Iterable[str]) -> list[str]:
    """Return the names of all files that `write_summary` writes where these outputs were saved."""
    joined = (OUTPUTS[name].joined for name in save if name in OUTPUTS)
    return [TABLE, PAGE, *(each.file for each in joined if each)]


def write_summary(out: Place, images: Iterable[Done]) -> None:
    """Write the table, the page, and the files that outputs have for all images; each is whole or not there.

    Args:
        out: Where they go.
        images: All images of the run, sorted by path, failed ones included. They are gone through several times, and
            need not fit in memory.

    Raises:
        RunError: One cannot be written.
    """
    try:
        columns = _Columns(images)
        for name in columns.saved:
            if name in OUTPUTS:
                _join(out, name, images, len(columns))
        out.write_parts(TABLE, _table(images, columns.classes))
        out.write(PAGE, _page(out, images, columns))
    except OSError as error:
        raise RunError(f"{error.filename or out.path()}: cannot be written: {error.strerror}") from None


def _found(images: Iterable[Done]) -> Iterator[Done]:
    return (image for image in images if image.row["status"] == "ok")


class _Columns:
    """What a page tells of all images that did not fail, in arrays of an entry an image.

    Attributes:
        saved: Names of outputs.
        classes: Names.
        failed: Rows of the first images that failed.
        failures: Number of all that did.
    """

    def __init__(self, images: Iterable[Done]) -> None:
        self.saved: Sequence[str] = []
        self.classes: Sequence[str] = []
        self.failed: list[ManifestRow] = []
        self.failures = 0
        labels, foreground, score, objects = array("L"), array("d"), array("d"), array("q")
        for image in images:
            row = image.row
            if row["status"] != "ok":
                self.failures += 1
                if len(self.failed) < LISTED:
                    self.failed.append(row)
                continue
            if not labels:
                self.saved, self.classes = row["options"]["save"], list(row["scores"])
            labels.append(self.classes.index(row["label"]))
            foreground.append(row["foreground"])
            score.append(image.score)
            objects.append(_NOT_COUNTED if row.get("objects") is None else row["objects"])
        self.labels, self.objects = np.array(labels), np.array(objects, np.int64)
        self.foreground, self.score = np.array(foreground), np.array(score)
        self.counted = self.objects != _NOT_COUNTED

    def __len__(self) -> int:
        return len(self.labels)


def _join(out: Place, word: str, images: Iterable[Done], total: int) -> None:
    """Join the files of the images; those that are not there any more are left out, and counted."""
    output = OUTPUTS[word]
    if output.joined is None:
        return
    missing = 0

    def read(image: Done) -> bytes | None:
        try:
            return image.place.read(image.target(word), MOST_BYTES)
        except (OSError, ValueError):  # ValueError: a name that no file has
            return None

    def contents() -> Iterator[bytes]:
        nonlocal missing
        for data in ordered_map(read, _found(images), out.at_once):
            if data is None:
                missing += 1
            else:
                yield data

    out.write_parts(output.joined.file, output.joined.join(contents()))
    if missing:
        say(
            f"{out.path(output.joined.file)}: without {missing} of {total} images, whose files in "
            f"{output.folder}/ cannot be read"
        )


def _table(images: Iterable[Done], classes: Sequence[str]) -> Iterator[bytes]:
    """Return the lines of a CSV with a row an image."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    known = ("label", "foreground", "objects", "width", "height", "warning", "error")
    rows.writerow(["image", "status", *known, *(f"score {name}" for name in classes)])
    for image in images:
        row = image.row
        scores = row["scores"] or {}
        rows.writerow(
            [row["path"], row["status"], *(row.get(name) for name in known), *(scores.get(name) for name in classes)]
        )
        yield text.getvalue().encode(errors="backslashreplace")
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode(errors="backslashreplace")


class _Class(NamedTuple):
    name: str
    images: int
    foreground: float
    """Median."""
    objects: float | None
    """Mean."""


def _classes(columns: _Columns) -> Iterator[_Class]:
    for number, name in enumerate(columns.classes):
        own = columns.labels == number
        if own.any():
            objects = columns.objects[own & columns.counted]
            mean = float(objects.mean()) if len(objects) else None
            yield _Class(name, int(own.sum()), float(np.median(columns.foreground[own])), mean)


class _Bar(NamedTuple):
    text: str
    images: int
    height: float
    """Of the highest bar, 0 to 100."""


class _Histogram(NamedTuple):
    bars: Sequence[_Bar]
    low: str
    """What the axis begins with."""
    high: str
    """What it ends with."""


def _histogram(values: npt.NDArray[np.float64], describe: Callable[[float], str]) -> _Histogram:
    """Return how often values from 0 to 1 occur."""
    counts, edges = np.histogram(values, BINS, (0, 1))
    texts = [f"{describe(low)} to {describe(high)}" for low, high in pairwise(edges.tolist())]
    return _Histogram(_bars(texts, counts.tolist()), describe(0), describe(1))


def _histogram_of_counts(values: npt.NDArray[np.int64]) -> _Histogram:
    """Return how often whole numbers occur, several together where they are many."""
    most = int(values.max(initial=0))
    counts, edges = np.histogram(values, min(BINS, most + 1), (0, most + 1))
    lows, highs = np.ceil(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int) - 1
    texts = [f"{low}" if low == high else f"{low} to {high}" for low, high in zip(lows, highs, strict=True)]
    return _Histogram(_bars(texts, counts.tolist()), "0", str(most))


def _bars(texts: Sequence[str], counts: Sequence[int]) -> list[_Bar]:
    highest = max(1, *counts)
    return [_Bar(text, count, 100 * count / highest) for text, count in zip(texts, counts, strict=True)]


def _page(out: Place, images: Iterable[Done], columns: _Columns) -> bytes:
    found = len(columns)
    histograms = {
        "Foreground, share of an image": _histogram(columns.foreground, lambda share: f"{100 * share:.0f} %"),
        "Objects in an image": _histogram_of_counts(columns.objects[columns.counted]),
        "Score of the class": _histogram(columns.score, lambda score: f"{score:.2f}"),
    }
    return fill(
        "summary.html.jinja",
        title=f"{found:,} {'image' if found == 1 else 'images'}",
        classes=list(_classes(columns)),
        total=found,
        histograms=histograms if found > 1 else {},
        remarkable=_remarkable(images, columns),
        failed=columns.failed,
        failures=columns.failures,
        picture=lambda image: _picture(out, image),
        files=[name for name in files_of_run(columns.saved) if name != PAGE],
    )


def _remarkable(images: Iterable[Done], columns: _Columns) -> dict[str, list[Done]]:
    """Return images that are worth a look, by what is remarkable about them; each once."""
    everything = np.ones(len(columns), np.bool_)
    kinds = {
        "The class is least certain": (everything, columns.score),
        "Most foreground": (columns.foreground > 0, -columns.foreground),
        "Most objects": (columns.objects > 1, -columns.objects),
        "Least foreground": (everything, columns.foreground),
    }
    places: dict[str, list[int]] = {}
    seen = set[int]()
    for what, (which, order) in kinds.items():
        candidates = np.flatnonzero(which)
        first = candidates[order[candidates].argsort(kind="stable")[: SHOWN + len(seen)]].tolist()
        places[what] = [place for place in first if place not in seen][:SHOWN]
        seen.update(places[what])
    chosen = {place: image for place, image in enumerate(_found(images)) if place in seen}
    return {what: [chosen[place] for place in own] for what, own in places.items() if own}


def _picture(out: Place, image: Done) -> str | None:
    """Return the path of a picture of an image, from the page; None where none was saved."""
    saved = image.row["options"]["save"]
    name = next((name for name in PICTURES if name in saved), None)
    return (
        None if name is None else PurePath(os.path.relpath(image.place.path(image.target(name)), out.path())).as_posix()
    )
