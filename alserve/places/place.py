"""What a folder run asks of the place where its files are, be it a folder on the disk or in an object store."""

import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, Self

MOST_LINE = 1 << 26
"""Bytes of a line of a file that is read line by line."""

LONG_LINE = f"a line has more than {MOST_LINE:,} bytes"

SizeOf = Callable[[str], int | None]
"""Returns the bytes of a file, by its name in a place; None if it is not there."""


class Version(NamedTuple):
    """The state of an input file: as long as it is the same, its output files need not be made again."""

    bytes: int
    mtime_ns: int
    sha256: str | None = None
    """Hash of the content, where it has been read."""

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Look at a file without reading it; None if it is not there, or no regular file."""
        try:
            status = path.stat()
        except OSError:
            return None
        return cls(status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


class FileTooLargeError(OSError):
    """A file has more bytes than may be read.

    Args:
        size: Its bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(None, f"it has {size:,} bytes")
        self.size = size


class Place(Protocol):
    """A folder and all files below it, by their names relative to it, with forward slashes.

    It can be pickled, and holds nothing secret. Whatever cannot be done raises an `OSError` whose `strerror` says why.
    """

    @property
    def at_once(self) -> int:
        """Files that are best read at the same time."""

    def path(self, name: str = "") -> str:
        """Return what messages and the manifest call a file, or the place itself."""

    def local(self, name: str) -> Path | None:
        """Return the path of a file that is on a disk of this machine; None if it is elsewhere."""

    def look(self, name: str) -> Version | None:
        """Look at a file without reading it; None if it is not there, or no regular file."""

    def read(self, name: str, most: int) -> bytes:
        """Read a file.

        Raises:
            FileTooLargeError: It has more than `most` bytes, of which none was read.
            OSError: It cannot be read.
        """

    def lines(self, name: str) -> Iterator[bytes]:
        """Read a file of any size line by line; each ends with a line break, but perhaps the last.

        Raises:
            OSError: It cannot be read, or a line has more than `MOST_LINE` bytes.
        """

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that it is either whole or not there."""

    def write_parts(self, name: str, parts: Iterable[bytes]) -> None:
        """Write a file of any size, as `write` does one that is in memory."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def remove_unfinished(self, names: Iterable[str]) -> None:
        """Remove what was left where the writing of these files was killed."""

    def names(self, beginning: str) -> Sequence[str]:
        """Return the names that begin so of all files in the place itself, not in its folders, sorted."""

    def sizes(self, folders: Iterable[str]) -> SizeOf:
        """Return what tells the size of the files below some folders; an object store lists them once, now."""

    def locked(self, name: str) -> AbstractContextManager[object]:
        """Keep other processes from writing to a file.

        Raises:
            RunError: Another process writes to it, or it cannot be locked.
        """
