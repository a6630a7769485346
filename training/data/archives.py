"""Safe reading of archives of data sets.

An archive need not be what it says: sizes are counted while they are read, not believed, and what is taken for an image
is one.
"""

import csv
import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeVar

from alserve.errors import DataError, ImageError

MOST_BYTES = 64 << 20
"""Largest size of a file in an archive, in bytes."""
MOST_HEADER = 64 << 10
"""Largest size of what a tar archive says of one file, in bytes."""
MOST_UNPACKED, MOST_MEMBERS = 8 << 30, 200_000
"""Largest size of all files of an archive together, in bytes, and their largest number."""

Result = TypeVar("Result")

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    csv.Error,
    struct.error,
    EOFError,
    LookupError,
    RuntimeError,  # NotImplementedError and RecursionError as well
    ValueError,  # UnicodeError as well
    OverflowError,
)
"""What the standard library raises over archives that are cut short, changed, or made to confuse it."""


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into one line."""
    if not archive.is_file():
        raise DataError(f"{archive}: no such file, or no regular one")
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the archive
            raise
        raise DataError(f"{archive}: is no such archive, or cut short; download it again") from None
    except _DAMAGE:
        raise DataError(f"{archive}: is no such archive, or cut short; download it again") from None


def read_member(archive: Path, file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read a file of a zip, no further than it may be large, whatever size it claims."""
    if entry.flag_bits & 1:
        raise DataError(f"{archive}: {entry.filename} is encrypted; download the archive again")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DataError(f"{archive}: {entry.filename} is packed in an unknown way; download the archive again")
    with file.open(entry) as member:
        return _at_most(archive, entry.filename, member.read(MOST_BYTES + 1))


def members(archive: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Go through a tar archive; yield name, without its folder, and content of the files with that suffix."""
    with reading(archive), _Unpacked(archive) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as file:
        for count, member in enumerate(file):
            if count == MOST_MEMBERS:
                raise DataError(f"{archive}: holds more than {MOST_MEMBERS:,} files, as this data set does not")
            if member.offset_data + member.size > MOST_UNPACKED:  # what is passed over is unpacked as well
                raise DataError(f"{archive}: holds more than {MOST_UNPACKED >> 30} GiB, as this data set does not")
            path = PurePosixPath(member.name)
            if member.isfile() and path.suffix.lower() == suffix and not path.name.startswith("."):
                data = unpacked.read_content(min(member.size, MOST_BYTES + 1))
                yield path.name, _at_most(archive, member.name, data)


def as_image(archive: Path, name: str, read: Callable[[bytes], Result], data: bytes) -> Result:
    """Read what should be an image; raise a DataError that names it where it is none."""
    try:
        return read(data)
    except ImageError as error:
        raise DataError(f"{archive}: {name}: {error}; download the archive again") from None


def _at_most(archive: Path, name: str, data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        raise DataError(f"{archive}: {name} holds more than {MOST_BYTES >> 20} MiB, as no file of this data set does")
    return data


class _Unpacked(gzip.GzipFile):
    """What a gzip file holds: headers of usual lengths only, and content up to where the caller has looked."""

    def read(self, size: int | None = -1) -> bytes:
        """Read a header for `tarfile`, which would believe whatever length one claims."""
        return super().read(MOST_HEADER if size is None or size < 0 else min(size, MOST_HEADER))

    def read_content(self, size: int) -> bytes:
        """Read the content of the file whose header was read last."""
        data = super().read(size)
        if len(data) < size:
            raise EOFError
        return data
