"""Plan a run from or into an object store: its names come in a stream, and are never all in memory.

What is to be done lies in a temporary file. Of all names a hash of 64 bits is kept: to find images that would be
written to the same files, and to tell from one listing of the output folders what is there already.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from alserve.errors import DataError, RunError
from alserve.folder.find import find_all
from alserve.folder.parts import has_manifest
from alserve.folder.plan import (
    SHOWN,
    check_folder,
    check_inside,
    check_target,
    clashing,
    fold_name,
    is_blind,
    no_images,
    output_name,
)
from alserve.folder.planned import LeftOut, Plan, PlannedImage
from alserve.folder.shards import Shard
from alserve.folder.spool import Spool
from alserve.folder.summary import files_of_run
from alserve.outputs import OUTPUTS
from alserve.places.compact import Names, Table, digest
from alserve.places.disk import Disk
from alserve.places.place import Place, SizeOf, Version
from alserve.places.store import Store
from alserve.places.urls import Location, open_place

Fold = Callable[[str], str]


def plan_streamed(
    inputs: Sequence[Location],
    out: Location,
    *,
    save: tuple[str, ...],
    shard: Shard = Shard(),  # noqa: B008  it is frozen
    keep_extension: bool = False,
    overwrite: bool = False,
) -> Plan:
    """Find the images and decide where their output files go; see `alserve.folder.plan.plan`.

    Raises:
        DataError: An input is missing, no images are found, or two would write the same file.
        RunError: A store cannot be used, or `out` holds files that are not of a run.
    """
    search = _Search(inputs, open_place(out), save, keep_extension)
    place = search.out
    if isinstance(place, Store):
        place.check()
    elif isinstance(place, Disk):
        check_folder(place.root)
    fold: Fold = fold_name if isinstance(place, Disk) and is_blind(place.root) else str
    images, left_out = (
        _spool(place, save),
        Spool[LeftOut](lambda item: [item.path, item.reason, item.wanted], _load_left_out),
    )
    names, folded, inside = Names(), Names(), Table(0)
    for item in search:
        if isinstance(item, LeftOut):
            left_out.add(item)
            continue
        names.add(item.name)
        folded.add(fold(item.name))
        if item.path.startswith(f"{place.path()}/"):
            inside.add(item.path)
        if shard.takes(item.name):
            images.add(item)
    if not names:
        raise no_images(inputs, left_out)
    if clashes := folded.twice():
        raise _clashing(search, clashes, fold)
    try:
        there = place.sizes({OUTPUTS[word].folder for word in save})
        _check_targets(images, search, inside, None if overwrite or has_manifest(place) else there)
    except OSError as error:
        raise RunError(f"{error.filename or place.path()}: cannot be looked at: {error.strerror}") from None
    return Plan(place, images, there, left_out, len(names), names.hash(), shard, partial(_gather, place, save))


@dataclass(frozen=True)
class _Search:
    """All images of the inputs and what is left out, found anew each time that this is gone through."""

    inputs: Sequence[Location]
    out: Place
    save: tuple[str, ...]
    keep_extension: bool

    def __iter__(self) -> Iterator[PlannedImage | LeftOut]:
        for item in find_all(self.inputs, self.out):
            if isinstance(item, LeftOut):
                yield item
            else:
                name = output_name(item.name, keep_extension=self.keep_extension)
                yield PlannedImage(item.place, item.source, name, self.out, self.save, item.version)


def _load_left_out(row: list[Any]) -> LeftOut:
    return LeftOut(*row)


def _spool(out: Place, save: tuple[str, ...]) -> Spool[PlannedImage]:
    """Return what holds images of one run; the few places that they are in are kept apart."""
    places: list[Place] = []
    numbers: dict[Place, int] = {}

    def dump(image: PlannedImage) -> list[Any]:
        if image.place not in numbers:
            numbers[image.place] = len(places)
            places.append(image.place)
        return [numbers[image.place], image.source, image.name, image.listed and image.listed[:2]]

    def load(row: list[Any]) -> PlannedImage:
        number, source, name, listed = row
        return PlannedImage(places[number], source, name, out, save, Version(*listed) if listed else None)

    return Spool(dump, load)


def _gather(out: Place, save: tuple[str, ...], images: Iterable[PlannedImage]) -> Spool[PlannedImage]:
    spool = _spool(out, save)
    for image in images:
        spool.add(image)
    return spool


def _clashing(search: _Search, clashes: Sequence[int], fold: Fold) -> DataError:
    """Return the error of images whose output files would have the same name, after looking for some of them again."""
    groups: dict[int, list[PlannedImage]] = defaultdict(list)
    few = frozenset(clashes[:SHOWN])
    for item in search:
        if isinstance(item, PlannedImage) and (number := digest(fold(item.name))) in few:
            groups[number].append(item)
            if len(groups) == len(few) and all(len(group) > 1 for group in groups.values()):
                break
    shown = sorted((group[0].name, [image.path for image in group]) for group in groups.values())
    return clashing(shown, len(clashes), keep_extension=search.keep_extension)


def _check_targets(images: Iterable[PlannedImage], search: _Search, inside: Table, there: SizeOf | None) -> None:
    """Refuse to write over an input, outside of a folder, and over any file that is not of a run.

    Args:
        images: What is to be done.
        search: Where the results go.
        inside: Paths of the inputs that lie there.
        there: Tells the size of an output file; None if it may be written over.
    """
    out = search.out
    check_once = lru_cache(1024)(check_inside)

    def check(target: str, *, exists: bool) -> None:
        path = out.path(target)
        check_target(path, is_input=len(inside) > 0 and inside.get(path) is not None, exists=exists)

    for name in files_of_run(search.save):
        check(name, exists=there is not None and out.look(name) is not None)
    if there is None and not len(inside) and not isinstance(out, Disk):
        return
    for image in images:
        for target in image.targets.values():
            if isinstance(out, Disk):
                check_once(out.root, (out.root / target).parent)
            check(target, exists=there is not None and there(target) is not None)
