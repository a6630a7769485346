"""A data set in an object store, copied to this machine: a training reads its files many times."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from alserve.errors import DataError, RunError
from alserve.images.codec import MAX_FILE_BYTES
from alserve.measure.dataset import Dataset
from alserve.measure.listing import Identity, Listing
from alserve.paths import check_name
from alserve.places.fetch import Wanted, fetch
from alserve.places.store import Store
from alserve.places.urls import Location
from alserve.runtime.selfcheck import cache_folder
from alserve.terminal import say


def local_copy(dataset: Dataset) -> Dataset:
    """Return a data set with all its files on the disk: of those in an object store, a copy.

    The copies are below the folder data/ of the user's cache folder (`$ALSERVE_CACHE`), by bucket and key. A file that
    is there with the object's size and time is not fetched again, so that a copy that was stopped goes on; what is
    there besides is not read. One process at a time copies.

    Args:
        dataset: Images and masks on the disk, in object stores, or both.

    Raises:
        DataError: A file is too large for an image, or has a key that is no file name, or none of its own here.
        RunError: There is no room for the copy, or it cannot be written.
    """
    if not dataset.stored:
        return dataset
    folder = cache_folder() / "data"
    copies: dict[Location, Wanted] = {}
    for url, version in dataset.stored.items():
        scheme, _, bucket, key = url.split("/", 3)
        check_name(key, dataset.source)
        if version.bytes > MAX_FILE_BYTES:
            raise DataError(f"{url}: has {version.bytes:,} bytes, more than an image may")
        copies[url] = Wanted(Store(f"{scheme}//{bucket}"), key, version, folder / scheme.rstrip(":") / bucket / key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder):
            fetch(list(copies.values()), folder, "the data")
    except OSError as error:
        raise RunError(f"{error.filename or folder}: the data cannot be copied: {error.strerror}") from None
    _check_apart(copies)
    samples = (
        replace(
            sample,
            image=copies[sample.image].path if sample.image in copies else sample.image,
            mask=copies[sample.mask].path if sample.mask in copies else sample.mask,
        )
        for sample in dataset.samples
    )
    return replace(dataset, samples=tuple(samples), stored={})


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait until no other process copies into a folder."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{folder}: another process copies data there; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_apart(copies: dict[Location, Wanted]) -> None:
    """Check that no two copies are one file, as upper and lower case are on some disks."""
    listing, found = Listing(), dict[Identity | None, Location]()
    for url, item in copies.items():
        if (other := found.setdefault(listing.find(str(item.path)), url)) != url:
            raise DataError(f"{url}: its copy would be that of {other} ({item.path}); rename one of them")
