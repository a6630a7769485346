"""A data set in an object store, copied to this machine: a training reads its files many times."""

import os
import shutil
from pathlib import Path

from alserve.errors import DataError, RunError
from alserve.files import open_atomic, remove_unfinished
from alserve.images.codec import MAX_FILE_BYTES
from alserve.measure.rows import look_up, read_rows
from alserve.parallel import ordered_map
from alserve.paths import check_name
from alserve.places.disk import Disk
from alserve.places.place import Version
from alserve.places.store import Store
from alserve.places.urls import Location, open_file
from alserve.runtime.selfcheck import cache_folder
from alserve.terminal import progress, say


def local_copy(data: Location) -> Path:
    """Return where a data set is on the disk: a path as it is, and of a CSV in an object store a copy.

    The copy holds the CSV and the files that it names, under their keys, in the folder data/ of the user's cache
    folder (`$ALSERVE_CACHE`). A file that is there with the object's size and time is not fetched again, so that a copy
    that was stopped goes on.

    Args:
        data: A folder or a CSV; or the URL of a CSV.

    Raises:
        DataError: The CSV or a file cannot be read, is too large for an image, or has a key that is no file name.
        RunError: There is no room for the copy, or it cannot be written.
    """
    store, name = open_file(data)
    if isinstance(store, Disk):
        return store.root / name
    bucket, folder = Store(store.root), cache_folder() / "data" / store.root.replace("://", "/")
    table = store.key(name)
    try:
        versions = {table: store.version(name)}
    except OSError as error:
        raise DataError(f"{data}: cannot be read: {error.strerror}; name a CSV, not a folder") from None
    for url, version in look_up(str(data), store, list(read_rows(store, name))).items():
        versions[url.removeprefix(f"{store.root}/")] = version
    for key, version in versions.items():
        check_name(key, data)
        if key != table and version.bytes > MAX_FILE_BYTES:
            raise DataError(f"{bucket.path(key)}: has {version.bytes:,} bytes, more than an image may")
    wanted = {key: version for key, version in versions.items() if Version.of(folder / key) != version}
    if wanted:
        _fetch(bucket, wanted, folder)
    return folder / table


def _fetch(bucket: Store, wanted: dict[str, Version], folder: Path) -> None:
    """Copy objects into a folder, each whole or not at all."""
    size = sum(version.bytes for version in wanted.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < size:
            raise RunError(
                f"{folder}: the copy of the data takes {size / 1e9:.1f} GB there, and {free / 1e9:.1f} GB are free; "
                "make room, or name another folder with ALSERVE_CACHE"
            )
        remove_unfinished(folder / key for key in wanted)  # what a kill has left
        say(f"{folder}: keeps a copy of the data, {size / 1e6:,.1f} MB more; remove it when no run needs it")

        def fetch(key: str) -> None:
            with open_atomic(folder / key) as file:
                file.writelines(bucket.blocks(key))
            os.utime(folder / key, ns=(wanted[key].mtime_ns, wanted[key].mtime_ns))

        with progress(len(wanted), "copying the data", "files") as show:
            for done, _ in enumerate(ordered_map(fetch, wanted, bucket.at_once), start=1):
                show(done)
    except OSError as error:
        raise RunError(f"{error.filename or folder}: the data cannot be copied: {error.strerror}") from None
