"""Published data sets, from their official archives to a CSV that `load_dataset` reads: one data set a module."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from alserve.files import write_atomic
from alserve.registry import Registry
from alserve.terminal import say

VALID_SHARE = 0.2
"""Share of each class's training images that a seeded split validates on."""


class Entry(NamedTuple):
    """One line of the CSV; paths are relative to it."""

    image: str
    mask: str
    label: str
    split: str


class Unpack(Protocol):
    """Writes a data set."""

    def __call__(self, archive: Path, out: Path, *, masks: Path | None, seed: int | None) -> Path:
        """Unpack an archive.

        Args:
            archive: The official archive.
            out: Folder for images/CLASS/, masks/CLASS/ and data.csv, which is written last.
            masks: The archive of the masks, where they have one of their own. Default: beside the archive.
            seed: Draws the images of split "valid". Default: the published split, where there is one, else as of 0.

        Returns:
            The CSV.

        Raises:
            DataError: An archive is none, is cut short, or lacks something.
        """
        ...


@dataclass(frozen=True)
class Importer:
    """How the archive of one data set becomes a folder and a CSV.

    Args:
        description: Data set and archive, for help texts.
        unpack: Writes it.
    """

    description: str
    unpack: Unpack


IMPORTERS: Registry[Importer] = Registry("data set", __name__)
"""All data sets, by the name that `alserve data` knows them by."""


def hold_out(rows: Sequence[Entry], seed: int) -> list[Entry]:
    """Move a share of every class's training images to split "valid"."""
    rng = np.random.default_rng(seed)
    moved: set[str] = set()
    for label in sorted({row.label for row in rows}):
        members = [row.image for row in rows if row.label == label and row.split == "train"]
        moved |= set(rng.permutation(members)[: round(VALID_SHARE * len(members))])
    return [row._replace(split="valid") if row.image in moved else row for row in rows]


def write_table(out: Path, rows: Sequence[Entry]) -> Path:
    """Write data.csv into a folder, say what is in it, and return its path."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Entry._fields, *rows])
    path = out / "data.csv"
    write_atomic(path, text.getvalue().encode())
    counts = ", ".join(f"{sum(row.split == split for row in rows)} {split}" for split in ("train", "valid", "test"))
    say(f"{path}: {len({row.label for row in rows})} classes; {counts}")
    return path
