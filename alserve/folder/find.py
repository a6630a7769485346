"""Find the images of folders in object stores, in a stream."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from alserve.errors import DataError
from alserve.folder.plan import UNREADABLE, find_on_disk, folders_of
from alserve.folder.planned import LeftOut
from alserve.images.header import FORMATS, HEAD, SUFFIXES
from alserve.images.kinds import kind_of_file
from alserve.outputs import OUTPUTS
from alserve.parallel import ordered_map
from alserve.paths import fault_of
from alserve.places.disk import Disk
from alserve.places.listing import HIDING, Listed
from alserve.places.place import Place, Version
from alserve.places.store import Store
from alserve.places.urls import Location, open_file, open_store, path_of

PAGE = 1000
"""Objects that are looked into at the same time, where names do not tell what they are."""


class Found(NamedTuple):
    """An image."""

    place: Place
    source: str
    """Its name there."""
    name: str
    """Its name relative to the input."""
    version: Version | None = None
    """Its state, where a store has told it."""


def find_all(inputs: Sequence[Location], out: Place) -> Iterator[Found | LeftOut]:
    """Find the images of all inputs and what is left out, by and by; those of an input are sorted by path.

    Args:
        inputs: Images and folders of images.
        out: Where the results go, which are no inputs.

    Raises:
        DataError: An input is missing, or cannot be read.
        RunError: A store cannot be used.
    """
    for given in sorted(inputs, key=str):
        path = path_of(given)
        yield from _on_disk(path, out) if path is not None else _in_store(str(given), out)


def _on_disk(given: Path, out: Place) -> Iterator[Found | LeftOut]:
    top = Disk(given if given.is_dir() else given.parent)
    own = folders_of(out.root) if isinstance(out, Disk) else frozenset()
    found = sorted(find_on_disk(given, own), key=lambda pair: pair[1])
    for item, name in found:
        yield item if isinstance(item, LeftOut) else Found(top, name, name)


def _in_store(given: str, out: Place) -> Iterator[Found | LeftOut]:
    top = open_store(given)
    top.check()
    to_disk = isinstance(out, Disk)
    try:
        above, name = open_file(given)
        version = above.look(name) if name and not given.endswith("/") else None
        if isinstance(above, Store) and version and version.bytes:
            item = _classify(above, Listed(name, version), to_disk=to_disk)
            if isinstance(item, LeftOut):
                yield LeftOut(item.path, item.reason, wanted=True)
            else:
                yield Found(above, name, name, version)
            return
        own = _own_folders(top, out)
        empty = True
        objects = top.list()
        while page := list(islice(objects, PAGE)):
            empty = False
            ours = [item for item in page if item.fault or not (_is_hidden(item.name) or item.name.startswith(own))]
            at_once = top.at_once if any(not PurePosixPath(item.name).suffix for item in ours) else 0
            classify = partial(_classify, top, to_disk=to_disk)
            yield from filter(None, ordered_map(classify, ours, at_once) if at_once else map(classify, ours))
    except OSError as error:
        raise DataError(f"{error.filename or given}: cannot be read: {error.strerror}") from None
    if empty:
        raise DataError(f"{given}: no such object or folder")


def _own_folders(top: Store, out: Place) -> tuple[str, ...]:
    """Return how the names below an input begin that are results of runs into `out`."""
    if not isinstance(out, Store) or out.root != top.root:
        return ()
    keys = (f"{out.key(name)}/" for name in ("", *(output.folder for output in OUTPUTS.values())))
    start = f"{top.prefix}/" if top.prefix else ""
    return tuple(key.removeprefix(start) for key in keys if key.startswith(start) and key not in {start, "/"})


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _classify(store: Store, item: Listed, *, to_disk: bool) -> Found | LeftOut | None:
    """Tell an image from what is left out; None for files that are no images.

    Only where a name has no suffix, the first bytes are read: each is a request.
    """
    name, path = PurePosixPath(item.name), store.path(item.name)
    if item.fault:
        return LeftOut(path, item.fault, wanted=item.fault == HIDING)
    kind = kind_of_file(name, b"")
    if name.suffix.lower() not in SUFFIXES:
        if not name.suffix and item.version and item.version.bytes:
            try:
                kind = kind_of_file(name, store.read_head(item.name, HEAD))
            except OSError:
                return LeftOut(path, UNREADABLE)
        if kind not in FORMATS:
            return LeftOut(path, kind) if kind else None
    if to_disk and (fault := fault_of(item.name)):
        return LeftOut(path, f"name that {fault}")
    return Found(store, item.name, item.name, item.version)
