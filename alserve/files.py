"""Files that are whole or not there: written under a temporary name, then moved; by one process at a time."""

import errno
import os
import secrets
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from alserve.errors import RunError
from alserve.terminal import say

_RANDOM, _UNFINISHED = 8, ".tmp"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is either whole or not there: under a temporary name, then moved.

    It gets the permissions that `open` would give to a new file.

    Args:
        path: Where the file is to be; its folder is created.
        data: Its bytes.

    Raises:
        OSError: The disk is full, or the folder may not be written; it names `path`, and nothing is left behind.
    """
    with open_atomic(path) as file:
        file.write(data)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written part by part, as `write_atomic` writes one whole: an error leaves nothing behind.

    Raises:
        OSError: See `write_atomic`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary(path)
    try:
        try:
            with unfinished.open("xb") as file:
                yield file
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:  # a full disk names no file by itself
        if error.filename in {None, str(unfinished)}:
            error.filename, error.filename2 = str(path), None
        raise


def temporary(path: Path) -> Path:
    """Return a new name beside a file, of those that `remove_unfinished` removes."""
    return path.with_name(f"{_beginning(path.name)}{secrets.token_hex(_RANDOM // 2)}{_UNFINISHED}")


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Remove what a killed `write_atomic` of these files has left beside them."""
    beginnings: dict[Path, set[str]] = {}
    for path in paths:
        beginnings.setdefault(path.parent, set()).add(_beginning(path.name))
    for folder, ours in beginnings.items():
        for path in folder.glob(f".*{_UNFINISHED}"):
            if path.name[: -_RANDOM - len(_UNFINISHED)] in ours:
                with suppress(OSError):
                    path.unlink()


def _beginning(name: str) -> str:
    """Return how the temporary name of this file begins, and of no other; random letters and `_UNFINISHED` follow."""
    return f".{name[:24]}-{zlib.crc32(os.fsencode(name)):08x}-"


def irregular(path: Path) -> str | None:
    """Tell what is at a path that is no file to read: "folder", "pipe", "socket" or "device".

    Returns:
        What it is; None for a file, and where there is nothing that can be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a null character in the name
        return None
    if stat.S_ISREG(mode):
        return None
    kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    return next((word for fits, word in kinds if fits(mode)), "device")


_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a network file system answers that cannot lock."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes, and other threads, from writing to a file or folder; a process that dies lets go of it.

    Args:
        path: The file or folder; it lies in a folder that is there, and holds a hidden file while the lock is held.

    Raises:
        RunError: Another process writes to it, or its folder cannot be written to.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{path}: another process is writing to it; wait for that, or use another folder") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise RunError(f"{path}: cannot be locked: {error.strerror}") from None
        say(f"{path}: this file system has no locks; let no other process write there at the same time")
    try:
        yield
    finally:
        with suppress(OSError):  # Windows lets nobody remove an open file; there the release removes it
            Path(lock.lock_file).unlink()
        lock.release()
