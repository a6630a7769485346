"""A folder on the disk."""

import errno
import glob
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from alserve.files import irregular, locked, open_atomic, remove_unfinished, write_atomic
from alserve.places.place import LONG_LINE, MOST_LINE, FileTooLargeError, SizeOf, Version


@dataclass(frozen=True, slots=True)
class Disk:
    """A folder on the disk; see `Place`.

    Args:
        root: The folder; it need not be there.
    """

    root: Path
    at_once: int = 1

    def path(self, name: str = "") -> str:
        """See `Place`."""
        return (self.root / name).as_posix()

    def local(self, name: str) -> Path:
        """See `Place`."""
        return self.root / name

    def look(self, name: str) -> Version | None:
        """See `Place`."""
        return Version.of(self.root / name)

    def read(self, name: str, most: int) -> bytes:
        """See `Place`."""
        path = self._regular(name)
        if (size := path.stat().st_size) > most:
            raise FileTooLargeError(size)
        return path.read_bytes()

    def lines(self, name: str) -> Iterator[bytes]:
        """See `Place`."""
        with self._regular(name).open("rb") as file:
            while line := file.readline(MOST_LINE + 1):
                if len(line) > MOST_LINE:
                    raise OSError(errno.EINVAL, LONG_LINE, self.path(name))
                yield line

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        write_atomic(self.root / name, data)

    def write_parts(self, name: str, parts: Iterable[bytes]) -> None:
        """See `Place`."""
        with open_atomic(self.root / name) as file:
            file.writelines(parts)

    def remove(self, name: str) -> None:
        """See `Place`."""
        (self.root / name).unlink(missing_ok=True)

    def remove_unfinished(self, names: Iterable[str]) -> None:
        """See `Place`."""
        remove_unfinished(self.root / name for name in names)

    def names(self, beginning: str) -> Sequence[str]:
        """See `Place`."""
        return sorted(path.name for path in self.root.glob(f"{glob.escape(beginning)}*"))

    def sizes(self, folders: Iterable[str]) -> SizeOf:  # noqa: ARG002  each file is looked at when it is asked for
        """See `Place`."""
        return lambda name: version.bytes if (version := self.look(name)) else None

    def locked(self, name: str) -> AbstractContextManager[None]:
        """See `Place`."""
        return locked(self.root / name)

    def _regular(self, name: str) -> Path:
        """Return the path of a file; a pipe would wait for somebody to write."""
        path = self.root / name
        if kind := irregular(path):
            raise OSError(errno.EINVAL, f"it is a {kind}")
        return path
