"""The rows of a CSV: which images there are, of which class, with which mask; on the disk or in an object store."""

import csv
import os
import posixpath
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from alserve.errors import DataError
from alserve.parallel import ordered_map
from alserve.paths import printable
from alserve.places.disk import Disk
from alserve.places.place import Version
from alserve.places.store import Store
from alserve.terminal import progress

SPLITS = ("train", "valid", "test")

COLUMNS = ("image", "label", "mask", "split")
"""What a CSV may have; the first two it must."""


class ListedImage(NamedTuple):
    """One image as a folder or a line of a CSV names it."""

    name: str
    """Relative to the folder, or to that of the CSV."""
    label: str
    mask: str | None
    """Its path or URL."""
    split: str
    line: int = 0
    """Of the CSV, from 1."""

    @property
    def where(self) -> str:
        """Words before a message: the line, if there is one."""
        return f"line {self.line}: " if self.line else ""


def read_rows(folder: Disk | Store, name: str) -> Iterator[ListedImage]:
    """Read a CSV with columns image, label and optionally mask and split, paths relative to the CSV.

    Args:
        folder: Where it is.
        name: Its name there.

    Raises:
        DataError: It cannot be read, or a line does not fit.
    """
    data = folder.path(name)
    try:
        lines = csv.reader(_text(folder.lines(name)))
        titles = next(lines, [])
        _check_titles(data, titles)
        columns = [titles.index(title) if title in titles else -1 for title in COLUMNS]
        for number, line in enumerate(lines, start=2):
            if line:
                cells = [*line, *[""] * (len(titles) - len(line)), ""]  # cells that are not there are empty
                yield _row(folder, f"{data}: line {number}", number, [cells[column].strip() for column in columns])
    except OSError as error:
        raise DataError(f"{data}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{data}: cannot be read as a CSV file in UTF-8") from None


def _text(lines: Iterable[bytes]) -> Iterator[str]:
    r"""Decode the lines of a file, of which the first may begin with a byte order mark, and any end with "\r" alone."""
    encoding = "utf-8-sig"
    for line in lines:
        text = line.decode(encoding)
        encoding = "utf-8"
        if "\r" in text:
            yield from StringIO(text, newline="")
        elif text:
            yield text


def _check_titles(data: str, titles: Sequence[str]) -> None:
    if missing := {"image", "label"} - set(titles):
        raise DataError(
            f"{data}: the CSV has no column {' and no column '.join(sorted(missing))}; it needs image and label"
        )
    if double := [title for title in COLUMNS if titles.count(title) > 1]:
        raise DataError(f"{data}: the CSV has two columns {double[0]}; keep one")


def _row(folder: Disk | Store, where: str, number: int, cells: Sequence[str]) -> ListedImage:
    name, label, mask, split = cells
    if not name or not label:
        raise DataError(f"{where}: {f'image {name} has no label' if name else 'no image is named'}")
    if split and split not in SPLITS:
        raise DataError(f"{where}: unknown split '{split}'; use {', '.join(SPLITS)}")
    try:
        locate(folder, name)
        found = locate(folder, mask) if mask else None
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if "\\" in name or "//" in name or "/." in f"/{name}":
        name = Path(name).as_posix()
    return ListedImage(name, label, found, split or "train", number)


def locate(folder: Disk | Store, name: str) -> str:
    """Return the path, or the URL, of a file by its name relative to a folder; ".." leads up, on a disk anywhere.

    Raises:
        DataError: The folder is in an object store, and the name leads out of the bucket.
    """
    if isinstance(folder, Disk):
        return os.path.join(folder.root, name)  # noqa: PTH118  plain strings: there may be a million
    key = posixpath.normpath(folder.key(name))
    if name.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) or key.split("/")[0] in {"..", "."}:
        raise DataError(f"'{printable(name)}' leads out of {folder.root}; name it relative to the CSV, in its bucket")
    return Store(folder.root).path(key)


def look_up(data: str, folder: Store, rows: Sequence[ListedImage], known: Container[str] = ()) -> dict[str, Version]:
    """Ask an object store for all images and masks of a CSV that is there; none is read.

    Args:
        data: The CSV, for messages.
        folder: Where it is.
        rows: Its rows; masks on the disk are left out.
        known: URLs that need not be asked for.

    Returns:
        Their versions by their URLs.

    Raises:
        DataError: One is not there, or may not be read.
    """
    lines: dict[str, ListedImage] = {}
    for row in rows:
        if (image := locate(folder, row.name)) not in known:
            lines.setdefault(image, row)
        if row.mask and row.mask.startswith(f"{folder.root}/") and row.mask not in known:
            lines.setdefault(row.mask, row)
    bucket, found = Store(folder.root), dict[str, Version]()

    def look(url: str) -> Version:
        try:
            return bucket.version(url.removeprefix(f"{folder.root}/"))
        except OSError as error:
            raise DataError(f"{data}: {lines[url].where}{url}: {error.strerror}") from None

    with progress(len(lines), "looking for the files", "files") as show:
        for url, version in zip(lines, ordered_map(look, lines, folder.at_once), strict=True):
            found[url] = version
            show(len(found))
    return found
