"""Copy objects of a store to the disk, each whole or not at all."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from alserve.errors import RunError
from alserve.files import open_atomic, remove_unfinished
from alserve.parallel import ordered_map
from alserve.places.place import Version
from alserve.places.store import Store
from alserve.terminal import progress, say


class Wanted(NamedTuple):
    """An object that is to be copied."""

    store: Store
    name: str
    version: Version
    path: Path
    """Where the copy is to be."""

    def is_there(self) -> bool:
        """Tell whether the copy is there, by the object's size and time."""
        return Version.of(self.path) == self.version


def fetch(wanted: Sequence[Wanted], folder: Path, what: str) -> None:
    """Copy objects; those that are there are not copied again, so that what was stopped goes on.

    Args:
        wanted: The objects.
        folder: What they all are copied below; it is made.
        what: What they are, for messages, such as "the data".

    Raises:
        RunError: There is no room, an object cannot be read, or a file cannot be written.
    """
    missing = [item for item in wanted if not item.is_there()]
    if not missing:
        return
    size = sum(item.version.bytes for item in missing)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < size:
            raise RunError(
                f"{folder}: the copy of {what} takes {size / 1e9:.1f} GB there, and {free / 1e9:.1f} GB are free; "
                "make room, or name another folder with ALSERVE_CACHE"
            )
        remove_unfinished(item.path for item in missing)  # what a kill has left
        say(f"{folder}: keeps a copy of {what}, {size / 1e6:,.1f} MB more; remove it when no run needs it")
        with progress(len(missing), f"copying {what}", "files") as show:
            for done, _ in enumerate(ordered_map(_copy, missing, missing[0].store.at_once), start=1):
                show(done)
    except OSError as error:
        raise RunError(f"{error.filename or folder}: {what} cannot be copied: {error.strerror}") from None


def _copy(item: Wanted) -> None:
    with open_atomic(item.path) as file:
        file.writelines(item.store.blocks(item.name))
    os.utime(item.path, ns=(item.version.mtime_ns, item.version.mtime_ns))
