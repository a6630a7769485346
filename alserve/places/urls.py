"""What a user names a place by: a path, or the URL of an object store."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.request import url2pathname

from alserve.errors import DataError, RunError
from alserve.paths import printable
from alserve.places.disk import Disk
from alserve.places.place import Place
from alserve.places.store import Store

Location = str | Path
"""A path, or a URL."""

SCHEMES = ("s3", "gs", "az", "abfss")
"""Of object stores."""

ALIASES = {"s3a": "s3", "gcs": "gs", "abfs": "az"}
"""What Hadoop, Arrow and fsspec call some of them."""

KNOWN = "s3://, gs://, az://, abfss://, file:// or a path, such as that of a folder where it is mounted"

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SECRET = re.compile(
    r"[?&](sig|signature|token|[a-z-]*(credential|accesskeyid|secret|password)[a-z-]*|x-[a-z]+-signature)=",
    re.IGNORECASE,
)
"""What a signed address holds."""


class _Address(NamedTuple):
    root: str
    """Scheme and bucket, such as "s3://bucket"."""
    key: str
    """What follows, without slashes around it."""


def path_of(location: Location) -> Path | None:
    """Return the path that is meant; None where it is the URL of something else than a file.

    Raises:
        DataError: It is a file's URL, of another machine.
    """
    if isinstance(location, Path):
        return location
    found = _URL.fullmatch(location)
    if found is None:
        return Path(location)
    if found[1].lower() != "file":
        return None
    host, slash, path = found[2].partition("/")
    if host not in {"", "localhost"} or not slash:
        raise DataError(f"{printable(location)}: names another machine; a file's URL is file:///folder")
    return Path(url2pathname(slash + path))


def on_disk(location: Location) -> Path:
    """Return the path that is meant, where nothing but a disk will do.

    Raises:
        DataError: It is the URL of something else than a file of this machine.
    """
    path = path_of(location)
    if path is None:
        scheme = printable(str(location)).partition("://")[0]
        raise DataError(f"a {scheme}:// URL where only a file or folder on the disk can be; give a path")
    return path


def open_place(location: Location) -> Disk | Store:
    """Return a folder; nothing is looked at yet.

    Raises:
        DataError: It is a URL of an unknown kind, or with credentials in it.
        RunError: The extra for object stores is not installed.
    """
    path = path_of(location)
    return Disk(path) if path is not None else open_store(str(location))


def open_store(url: str) -> Store:
    """Return a folder in an object store; nothing is looked at yet, and errors are as above."""
    return Store(*_parse(url))


def open_file(location: Location) -> tuple[Disk | Store, str]:
    """Return the folder of a file, and the file's name there; nothing is looked at yet, and errors are as above."""
    path = path_of(location)
    if path is not None:
        return Disk(path.parent), path.name
    root, key = _parse(str(location))
    folder, _, name = key.rpartition("/")
    return Store(root, folder), name


def location(place: Place, name: str = "") -> Location:
    """Return where a file, or a place, is: a path on a disk, or else a URL."""
    return place.local(name) or place.path(name)


def _parse(text: str) -> _Address:
    """Part the URL of an object store; what could be a secret is never repeated in a message."""
    scheme, rest = text.split("://", 1)
    scheme = scheme.lower()
    scheme = "abfss" if scheme == "abfs" and "@" in rest.partition("/")[0] else ALIASES.get(scheme, scheme)
    bucket, _, key = rest.partition("/")
    user, at, host = bucket.rpartition("@")
    if at and (scheme != "abfss" or ":" in user):
        raise DataError(f"a {scheme}:// URL with credentials in it; give them in the environment, and the URL without")
    if _SECRET.search(rest):
        raise DataError(f"a signed {scheme}:// URL; give credentials in the environment, and the URL without '?'")
    if scheme not in SCHEMES:
        raise DataError(f"'{printable(scheme)}://' is no place that is known; give {KNOWN}")
    if not host or (at and not user) or not re.fullmatch(r"[A-Za-z0-9._-]+(@[A-Za-z0-9.-]+)?", bucket):
        raise DataError(f"'{printable(text)}': name a bucket, such as {scheme}://bucket/folder")
    if find_spec("obstore") is None:
        raise RunError(f"{scheme}:// needs obstore; run: pip install 'alserve[cloud]'")
    return _Address(f"{scheme}://{bucket}", _check_key(text, key.rstrip("/")))


def _check_key(text: str, key: str) -> str:
    if (key and any(part in {"", ".", ".."} for part in key.split("/"))) or printable(key) != key:
        raise DataError(f"'{printable(text)}': has a part that is empty, '.' or '..', or a control character")
    return key
