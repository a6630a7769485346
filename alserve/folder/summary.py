"""What a folder run found as a whole: one table of all images, one page, and the files that outputs have for all.

Each is made of the manifest's rows and of the images' own files, at the end of a run and of a merge.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np

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


def write_summary(out: Place, images: Sequence[Done]) -> None:
    """Write the table, the page, and the files that outputs have for all images; each is whole or not there.

    Args:
        out: Where they go.
        images: All images of the run, sorted by path, failed ones included.

    Raises:
        RunError: One cannot be written.
    """
    found = [image for image in images if image.row["status"] == "ok"]
    saved = found[0].row["options"]["save"] if found else []
    try:
        for name in saved:
            if name in OUTPUTS:
                _join(out, name, found)
        out.write(TABLE, _table(images, found))
        out.write(PAGE, _page(out, images, found, saved))
    except OSError as error:
        raise RunError(f"{error.filename or out.path()}: cannot be written: {error.strerror}") from None


def _join(out: Place, word: str, found: Sequence[Done]) -> None:
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
        for data in ordered_map(read, found, out.at_once):
            if data is None:
                missing += 1
            else:
                yield data

    out.write_parts(output.joined.file, output.joined.join(contents()))
    if missing:
        say(
            f"{out.path(output.joined.file)}: without {missing} of {len(found)} images, whose files in "
            f"{output.folder}/ cannot be read"
        )


def _table(images: Sequence[Done], found: Sequence[Done]) -> bytes:
    """Return a CSV with a row an image."""
    classes = list(found[0].row["scores"]) if found else []
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
    return text.getvalue().encode(errors="backslashreplace")


@dataclass(frozen=True)
class _Class:
    name: str
    images: Sequence[Done]

    @property
    def foreground(self) -> float:
        return float(median(image.row["foreground"] for image in self.images))

    @property
    def objects(self) -> float | None:
        counts = [image.row["objects"] for image in self.images if image.row.get("objects") is not None]
        return mean(counts) if counts else None


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


def _histogram(values: Sequence[float], describe: Callable[[float], str]) -> _Histogram:
    """Return how often values from 0 to 1 occur."""
    counts, edges = np.histogram(values, BINS, (0, 1))
    texts = [f"{describe(low)} to {describe(high)}" for low, high in pairwise(edges.tolist())]
    return _Histogram(_bars(texts, counts.tolist()), describe(0), describe(1))


def _histogram_of_counts(values: Sequence[int]) -> _Histogram:
    """Return how often whole numbers occur, several together where they are many."""
    most = max(values, default=0)
    counts, edges = np.histogram(values, min(BINS, most + 1), (0, most + 1))
    lows, highs = np.ceil(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int) - 1
    texts = [f"{low}" if low == high else f"{low} to {high}" for low, high in zip(lows, highs, strict=True)]
    return _Histogram(_bars(texts, counts.tolist()), "0", str(most))


def _bars(texts: Sequence[str], counts: Sequence[int]) -> list[_Bar]:
    highest = max(1, *counts)
    return [_Bar(text, count, 100 * count / highest) for text, count in zip(texts, counts, strict=True)]


def _page(out: Place, images: Sequence[Done], found: Sequence[Done], saved: Sequence[str]) -> bytes:
    names = list(found[0].row["scores"]) if found else []
    classes = [_Class(name, own) for name in names if (own := [each for each in found if each.row["label"] == name])]
    counted = [image for image in found if image.row.get("objects") is not None]
    histograms = {
        "Foreground, share of an image": _histogram(
            [image.row["foreground"] for image in found], lambda share: f"{100 * share:.0f} %"
        ),
        "Objects in an image": _histogram_of_counts([image.row["objects"] for image in counted]),
        "Score of the class": _histogram([image.score for image in found], lambda score: f"{score:.2f}"),
    }
    failed = [image.row for image in images if image.row["status"] != "ok"]
    return fill(
        "summary.html.jinja",
        title=f"{len(found):,} {'image' if len(found) == 1 else 'images'}",
        classes=classes,
        total=len(found),
        histograms=histograms if len(found) > 1 else {},
        remarkable=_remarkable(found, counted),
        failed=failed[:LISTED],
        failures=len(failed),
        picture=lambda image: _picture(out, image),
        files=[name for name in files_of_run(saved) if name != PAGE],
    )


def _remarkable(found: Sequence[Done], counted: Sequence[Done]) -> dict[str, list[Done]]:
    """Return images that are worth a look, by what is remarkable about them; each once."""
    kinds: dict[str, tuple[Sequence[Done], Callable[[Done], Any]]] = {
        "The class is least certain": (found, lambda image: image.score),
        "Most foreground": ([each for each in found if each.row["foreground"]], lambda each: -each.row["foreground"]),
        "Most objects": ([each for each in counted if each.row["objects"] > 1], lambda each: -each.row["objects"]),
        "Least foreground": (found, lambda image: image.row["foreground"]),
    }
    seen = set[str]()
    chosen: dict[str, list[Done]] = {}
    for what, (images, order) in kinds.items():
        fresh = [image for image in sorted(images, key=order) if image.row["name"] not in seen][:SHOWN]
        seen.update(image.row["name"] for image in fresh)
        chosen[what] = fresh
    return {what: images for what, images in chosen.items() if images}


def _picture(out: Place, image: Done) -> str | None:
    """Return the path of a picture of an image, from the page; None where none was saved."""
    saved = image.row["options"]["save"]
    name = next((name for name in PICTURES if name in saved), None)
    return (
        None if name is None else PurePath(os.path.relpath(image.place.path(image.target(name)), out.path())).as_posix()
    )
