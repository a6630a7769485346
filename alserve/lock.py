"""One process at a time writes to a file."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from alserve.errors import RunError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes, and other threads, from writing to a file; a process that dies lets go of it.

    Args:
        path: The file; its folder must be there, and holds a hidden file while the lock is held.

    Raises:
        RunError: Another process writes to it, or its folder cannot be written to.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{path}: another process is writing to it; wait for that, or use another --out") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be locked: {error.strerror}") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows lets nobody remove an open file; there the release removes it
            Path(lock.lock_file).unlink()
        lock.release()
