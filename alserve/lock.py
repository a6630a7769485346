"""One process at a time writes to a file."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from alserve.errors import RunError
from alserve.terminal import say

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
        raise RunError(f"{path}: another process is writing to it; wait for that, or use another --out") from None
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
