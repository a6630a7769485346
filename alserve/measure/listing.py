"""Files as folders list them: each folder is read once, and a file has one identity however it is spelled."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import NamedTuple
from unicodedata import normalize

from alserve.images.header import FORMATS, SUFFIXES

Identity = tuple[int, int, str]
"""Device and number of a file's folder, and the file's own name there in Unicode's form NFC."""


class _Folder(NamedTuple):
    device: int
    number: int
    files: frozenset[str]


class Listing:
    """Tells whether files are there, and which spellings mean the same one.

    A folder is read when the first of its files is asked for, which makes the millionth file as quick as the tenth.
    """

    def __init__(self) -> None:
        self._folders: dict[str, _Folder | None] = {}

    def find(self, path: str) -> Identity | None:
        """Return the identity of a regular file; None where there is none.

        It is the same for `a/../a`, a linked folder, both Unicode forms of a letter and, where the file system does not
        tell them apart, upper and lower case; links to one file under several names are told apart.
        """
        place, name = os.path.split(path)
        if place not in self._folders:
            self._folders[place] = _read(place or ".")
        folder = self._folders[place]
        if folder is None:
            return None
        if name not in folder.files:
            if not _is_file(path):
                return None
            alike = _fold(name)  # the file system takes this name for that of an entry
            name = next((entry for entry in folder.files if _fold(entry) == alike), name)
        return folder.device, folder.number, name if name.isascii() else normalize("NFC", name)


def _read(folder: str) -> _Folder | None:
    try:
        status = os.stat(folder)  # noqa: PTH116
        with os.scandir(folder) as entries:
            files = frozenset(entry.name for entry in entries if entry.is_file())
    except PermissionError:  # its files may be there, though it may not be listed
        files = frozenset()
    except (OSError, ValueError):
        return None
    return _Folder(status.st_dev, status.st_ino, files)


def _is_file(path: str) -> bool:
    try:
        return S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def _fold(name: str) -> str:
    return normalize("NFC", normalize("NFC", name).casefold())


def find_files(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Find all images below a folder, hidden ones aside.

    Returns:
        The images, told by their suffix and sorted; and how many other files there are of each kind.
    """
    images: list[Path] = []
    others: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.is_file():
            if path.suffix.lower() in SUFFIXES:
                images.append(path)
            else:
                others[kind_of_other(path.name)] += 1
        elif not path.is_dir():
            others["that are no regular files"] += 1
    return sorted(images), others


def kind_of_other(name: str) -> str:
    """Return what kind of file this is, by its name, see `describe_others`."""
    return PurePosixPath(name).suffix.lower() or "without a suffix"


def describe_others(counts: Iterable[tuple[str, int]]) -> str:
    """Say in words what was found beside the images and is not read."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts))
    return f"left out {kinds}: the kinds that are read are {', '.join(FORMATS)}, with such a suffix"
