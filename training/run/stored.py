"""A run in an object store: it works in a folder of this machine, and the store has a copy of every state it saved."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alserve.errors import DataError, RunError
from alserve.paths import fault_of
from alserve.places.fetch import Wanted, fetch
from alserve.places.lock import StoreLock
from alserve.places.place import Version
from alserve.places.store import Store
from alserve.places.urls import Location, open_store, path_of
from alserve.runtime.selfcheck import cache_folder
from training.run.folder import CONFIG, IMAGES, LATEST, RESULTS

Save = Callable[[], None]
"""Copies what has changed in a run's folder to where the run is kept."""

_BLOCK = 8 << 20


def folder_of(out: Location) -> Path:
    """Return the folder on the disk in which a run works: `out` itself, or one in the user's cache folder.

    Raises:
        DataError: It is the URL of a whole bucket, or has a part that is no name of a folder here.
    """
    path = path_of(out)
    if path is not None:
        return path
    store = open_store(str(out))
    if not store.prefix:
        raise DataError(f"{out}: is a whole bucket; name a folder in it for the run")
    if fault := fault_of(store.prefix):
        raise DataError(f"{out}: {fault}; name another folder")
    return cache_folder() / "runs" / store.path().replace("://", "/")


@contextmanager
def kept_run(out: Location, *, overwrite: bool = False) -> Iterator[Save]:
    """Fetch what an object store has of a run to `folder_of(out)`; at the end, copy what the run has changed.

    Of a run on the disk nothing is copied. One process at a time has a run in a store.

    Args:
        out: Where the run is kept, a path or a URL.
        overwrite: Begin anew: what is in the store is replaced when the first state is saved.

    Yields:
        A function that copies what has changed so far. Each file is there whole or not at all, and the state last, so
        that whoever fetches them at any time can go on.

    Raises:
        RunError: Another process has the run, the folder holds something else, or the store cannot be used.
    """
    if path_of(out) is not None:
        yield lambda: None
        return
    folder, store = folder_of(out), open_store(str(out))
    above, _, name = store.prefix.rpartition("/")
    store.check()
    with Store(store.root, above).locked(name) as lock:
        copy = _Copy(store, folder, lock, anew=overwrite)
        copy.fetch()
        yield copy.save
        copy.save()


class _Copy:
    """The copy of a run's folder in an object store; what else is there is let alone."""

    def __init__(self, store: Store, folder: Path, lock: StoreLock, *, anew: bool) -> None:
        self._store, self._folder, self._lock, self._anew = store, folder, lock, anew
        self._kept: dict[str, Version] = {}

    def fetch(self) -> None:
        """Make the folder what the store has: a run that another machine has continued goes on from there."""
        try:
            objects = self._store.list()
            if self._store.look(CONFIG) is None and next(objects, None) is not None:
                raise RunError(f"{self._store.path()}: is not empty and holds no run; name another --out")
            self._kept = {item.name: item.version for item in objects if item.version and _is_kept(item.name)}
        except OSError as error:
            raise RunError(f"{self._store.path()}: cannot be read: {error.strerror}") from None
        wanted = {} if self._anew else self._kept
        for name in self._there().keys() - wanted.keys():
            (self._folder / name).unlink()
        copies = [Wanted(self._store, name, version, self._folder / name) for name, version in wanted.items()]
        fetch(copies, self._folder, "the run")

    def save(self) -> None:
        """Copy what has changed, the configuration first and the state last; then remove what is no longer there.

        Raises:
            RunError: The store cannot be written to, or another process has begun to write there.
        """
        self._lock.check()
        try:
            if self._anew:  # no state of the earlier run may be there beside the new configuration
                self._remove(sorted(self._kept, key=_order, reverse=True))
                self._anew = False
            there = self._there()
            for name in sorted(there, key=_order):
                if there[name] != self._kept.get(name):
                    self._put(name)
            self._remove(sorted(self._kept.keys() - there.keys()))
        except OSError as error:
            raise RunError(
                f"{error.filename or self._store.path()}: the run cannot be saved: {error.strerror}; the same command "
                "goes on from what was saved before"
            ) from None

    def _put(self, name: str) -> None:
        """Copy a file; it gets the time of the object, by which `fetch` knows that they are the same."""
        path = self._folder / name
        with path.open("rb") as file:
            self._store.write_parts(name, iter(lambda: file.read(_BLOCK), b""))
        version = self._store.version(name)
        os.utime(path, ns=(version.mtime_ns, version.mtime_ns))
        self._kept[name] = version

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self._store.remove(name)
            del self._kept[name]

    def _there(self) -> dict[str, Version]:
        """Return the files that belong into the store, with their states."""
        paths = [*self._folder.glob("*"), *self._folder.glob("state/*")]
        names = (path.relative_to(self._folder).as_posix() for path in paths)
        return {name: found for name in names if _is_kept(name) and (found := Version.of(self._folder / name))}


def _is_kept(name: str) -> bool:
    """Tell whether a file is one of a run's, by its name; the images at the working size are made again elsewhere."""
    folder, _, own = name.rpartition("/")
    if folder != "state":
        return name in {CONFIG, *RESULTS}
    return not (own.startswith((".", IMAGES)) or own.endswith(".lock") or fault_of(name))


def _order(name: str) -> tuple[bool, bool, str]:
    """Sort the files of a run: its configuration before all others, the state behind them."""
    return name == LATEST, name != CONFIG, name
