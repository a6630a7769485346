"""A folder in an object store: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.

Credentials, region and endpoint come from the environment, as the provider's own tools take them.
"""

import errno
import mimetypes
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from alserve.errors import RunError
from alserve.places.compact import Table
from alserve.places.failures import failing
from alserve.places.lock import StoreLock
from alserve.places.place import FileTooLargeError, SizeOf, Version

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

MOST_KEY_BYTES = 1024
"""Length of a name, in UTF-8, which all stores take."""

_BLOCK = 8 << 20
"""Bytes of a large file that are read with one request."""

_PATIENT: "RetryConfig" = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=10), "base": 2},
}
"""How a request is repeated that was throttled, answered with 5xx, or cut off."""

_FIRST: "RetryConfig" = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
}
"""The same for the first request, which shows whether there are a store, a bucket and credentials at all."""


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
        try:
            with failing(self.path()):
                next(iter(_open(self.root, patient=False).list(self.prefix or None, chunk_size=1)), None)
        except OSError as error:
            raise RunError(f"{self.path()}: {error.strerror}") from None

    def look(self, name: str) -> Version | None:
        """See `Place`."""
        try:
            with failing(self.path(name)):
                return version_of(self.client.head(self.key(name)))
        except OSError:
            return None

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

    def lines(self, name: str) -> Iterator[bytes]:
        """See `Place`."""
        with failing(self.path(name)):
            size = self.client.head(self.key(name))["size"]
        rest = b""
        for start in range(0, size, _BLOCK):
            with failing(self.path(name)):
                block = self.client.get_range(self.key(name), start=start, end=min(start + _BLOCK, size))
            *lines, rest = (rest + bytes(block)).split(b"\n")
            yield from (line + b"\n" for line in lines)
        if rest:
            yield rest

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        self._put(name, data)

    def write_parts(self, name: str, parts: Iterable[bytes]) -> None:
        """See `Place`."""
        self._put(name, iter(parts))

    def _put(self, name: str, data: bytes | Iterator[bytes]) -> None:
        key = self.key(name)
        if len(key.encode(errors="surrogatepass")) > MOST_KEY_BYTES:
            raise OSError(errno.ENAMETOOLONG, "the name is too long for the store", self.path(name))
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        with failing(self.path(name)):
            self.client.put(key, data, attributes={"Content-Type": kind})

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
        with failing(self.path()):
            before = self.key(beginning[:-1]) if beginning[:-1].rstrip("/") else None
            chunks = self.client.list(self.prefix or None, offset=before, chunk_size=1000)
            skip = len(self.prefix) + 1 if self.prefix else 0
            names = (item["path"][skip:] for chunk in chunks for item in chunk)
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
            with failing(self.path(folder)):
                for chunk in self.client.list(self.key(folder), chunk_size=1000):
                    for item in chunk:
                        table.add(item["path"].removeprefix(f"{self.prefix}/"), item["size"])
        return lambda name: found[0] if (found := table.get(name)) else None

    def locked(self, name: str) -> StoreLock:
        """See `Place`."""
        folder, _, own = name.rpartition("/")
        hidden = "/".join(filter(None, (folder, f".{own}.lock")))
        return StoreLock(self, hidden, self.path(name))

    @property
    def client(self) -> "ObjectStore":
        """The store, for requests that are repeated patiently."""
        return _open(self.root, patient=True)


def version_of(meta: Any) -> Version:  # noqa: ANN401  obstore's type is not there at run time
    """Return the state of an object, of what a store says of it."""
    modified: datetime = meta["last_modified"]
    return Version(meta["size"], round(modified.timestamp() * 1000) * 1_000_000)


@lru_cache(maxsize=64)
def _open(root: str, *, patient: bool) -> "ObjectStore":
    """Open a bucket; a process that gets a `Store` from another one opens it for itself."""
    from obstore.store import from_url  # noqa: PLC0415  the extra may be missing

    try:
        with failing(root):
            return from_url(
                root, retry_config=_PATIENT if patient else _FIRST, client_options=client_options(patient=patient)
            )
    except OSError as error:
        raise RunError(f"{root}: {error.strerror}") from None


def client_options(*, patient: bool) -> "ClientConfig":
    """Return how requests are made: bounded in time, and without encryption only where the environment allows it."""
    allowed = (os.environ.get(f"{name}_ALLOW_HTTP", "") for name in ("AWS", "AZURE", "GOOGLE"))
    return {
        "connect_timeout": timedelta(seconds=3),
        "timeout": timedelta(seconds=120 if patient else 10),
        "allow_http": any(value.lower() in {"1", "true", "yes", "on"} for value in allowed),
    }
