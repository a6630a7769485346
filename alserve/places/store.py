"""A folder in an object store: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.

Credentials, region and endpoint come from the environment, as the provider's own tools take them.
"""

import errno
import mimetypes
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from alserve.errors import RunError
from alserve.places.client import open_bucket, version_of
from alserve.places.compact import Table
from alserve.places.failures import failing
from alserve.places.listing import Listed, list_bucket
from alserve.places.lock import StoreLock
from alserve.places.place import LONG_LINE, MOST_LINE, FileTooLargeError, SizeOf, Version

if TYPE_CHECKING:
    from obstore.store import ObjectStore

AT_STORE = 4
"""Images a core works on at once, where they come from or go to an object store."""

MOST_KEY_BYTES = 1024
"""Length of a name, in UTF-8, which all stores take."""

_BLOCK = 8 << 20
"""Bytes of a large file that are read with one request."""


@dataclass(frozen=True, slots=True)
class Store:
    """A folder in an object store; see `Place`.

    Args:
        root: Scheme and bucket, such as "s3://bucket".
        prefix: The folder in it, without slashes around it; empty for all of the bucket.
    """

    root: str
    prefix: str = ""
    at_once: int = 16

    def key(self, name: str = "") -> str:
        """Return the key of a file, or of the folder."""
        return "/".join(filter(None, (self.prefix, name)))

    def path(self, name: str = "") -> str:
        """See `Place`."""
        return "/".join(filter(None, (self.root, self.key(name))))

    def local(self, name: str) -> None:  # noqa: ARG002
        """See `Place`."""
        return

    def check(self) -> None:
        """Ask the store for the first names of the folder.

        Raises:
            RunError: There are no credentials, no bucket, or no permission; known after some 10 seconds at most.
        """
        from obstore.exceptions import InvalidPathError  # noqa: PLC0415  the extra may be missing

        try:
            with suppress(InvalidPathError), failing(self.path(), InvalidPathError):
                next(iter(open_bucket(self.root, patient=False).list(self.prefix or None, chunk_size=1)), None)
        except OSError as error:
            raise RunError(f"{self.path()}: {error.strerror}") from None

    def list(self, after: str | None = None) -> Iterator[Listed]:
        """List all files below the folder in the order of their names, see `list_bucket`.

        Args:
            after: A key; only those that follow it are listed.
        """
        return list_bucket(self.root, self.prefix, after)

    def look(self, name: str) -> Version | None:
        """See `Place`."""
        try:
            return self.version(name)
        except OSError:
            return None

    def version(self, name: str) -> Version:
        """Look at a file without reading it, as `look` does; why that cannot be is an `OSError`."""
        with failing(self.path(name)):
            return version_of(self.client.head(self.key(name)))

    def read(self, name: str, most: int) -> bytes:
        """See `Place`."""
        with failing(self.path(name)):
            answer = self.client.get(self.key(name))
            if (size := answer.meta["size"]) <= most:
                return bytes(answer.bytes())
        raise FileTooLargeError(size)

    def read_head(self, name: str, size: int) -> bytes:
        """Read the first bytes of a file that is not empty; fewer, if it has no more."""
        with failing(self.path(name)):
            return bytes(self.client.get_range(self.key(name), start=0, length=size))

    def blocks(self, name: str) -> Iterator[bytes]:
        """Read a file of any size part by part."""
        size = self.version(name).bytes
        for start in range(0, size, _BLOCK):
            with failing(self.path(name)):
                block = self.client.get_range(self.key(name), start=start, end=min(start + _BLOCK, size))
            yield bytes(block)

    def lines(self, name: str) -> Iterator[bytes]:
        """See `Place`."""
        rest = b""
        for block in self.blocks(name):
            *lines, rest = (rest + block).split(b"\n")
            yield from (line + b"\n" for line in lines)
            if len(rest) > MOST_LINE:
                raise OSError(errno.EINVAL, LONG_LINE, self.path(name))
        if rest:
            yield rest

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        key, kind = self._new(name)
        with failing(self.path(name)):
            self.client.put(key, data, attributes={"Content-Type": kind})

    def write_parts(self, name: str, parts: Iterable[bytes]) -> None:
        """See `Place`."""
        from obstore import open_writer  # noqa: PLC0415  the extra may be missing

        key, kind = self._new(name)
        with failing(self.path(name)):
            writer = open_writer(self.client, key, attributes={"Content-Type": kind}, buffer_size=_BLOCK)
            for part in parts:
                writer.write(part)
            writer.close()  # only now the object is there; without this, what was sent shows nowhere

    def _new(self, name: str) -> tuple[str, str]:
        """Return key and media type of a file that is to be written."""
        key = self.key(name)
        if len(key.encode(errors="surrogatepass")) > MOST_KEY_BYTES:
            raise OSError(errno.ENAMETOOLONG, "the name is too long for the store", self.path(name))
        return key, mimetypes.guess_type(name)[0] or "application/octet-stream"

    def remove(self, name: str) -> None:
        """See `Place`."""
        with suppress(FileNotFoundError), failing(self.path(name)):
            self.client.delete(self.key(name))

    def remove_unfinished(self, names: Iterable[str]) -> None:
        """See `Place`; what was not written to its end shows nowhere."""

    def starting(self, beginning: str) -> Iterator[str]:
        """Return the names that begin so of all files below the folder, sorted.

        Args:
            beginning: A letter at least.
        """
        names = (item.name for item in self.list(self.key(beginning[:-1].rstrip("/")) or None))
        yield from (
            name
            for name in takewhile(lambda name: name[: len(beginning)] <= beginning, names)
            if name.startswith(beginning)
        )

    def names(self, beginning: str) -> Sequence[str]:
        """See `Place`."""
        return [name for name in self.starting(beginning) if "/" not in name]

    def sizes(self, folders: Iterable[str]) -> SizeOf:
        """See `Place`."""
        table = Table()
        for folder in folders:
            for item in Store(self.root, self.key(folder)).list():
                if item.version:
                    table.add(f"{folder}/{item.name}", item.version.bytes)
        return lambda name: found[0] if (found := table.get(name)) else None

    def locked(self, name: str) -> StoreLock:
        """See `Place`."""
        folder, _, own = name.rpartition("/")
        hidden = "/".join(filter(None, (folder, f".{own}.lock")))
        return StoreLock(self, hidden, self.path(name))

    @property
    def client(self) -> "ObjectStore":
        """The store, for requests that are repeated patiently."""
        return open_bucket(self.root, patient=True)
