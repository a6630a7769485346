"""One run in parts: each image belongs to one shard by its name alone, and the shards' manifests merge to one."""

import hashlib
import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from alserve.errors import DataError, RunError
from alserve.folder.manifest import MANIFEST, Finished, dump, parse
from alserve.folder.summary import Done, write_summary
from alserve.places.place import Place
from alserve.places.urls import Location, location, open_file, open_place

SHOWN = 5
"""Shards that a message names; of more, the number is told."""


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a folder."""

    index: int = 1
    """From 1 to `count`."""
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "I/N".

        Raises:
            DataError: It is none, or I is not from 1 to N.
        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise DataError(f"--shard '{text}': give I/N, with I from 1 to N, such as 1/4")
        return cls(int(match[1]), int(match[2]))

    def takes(self, name: str) -> bool:
        """Tell whether an image is of this shard, whatever other images there are.

        Args:
            name: The name of its output files.
        """
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1

    @property
    def manifest(self) -> str:
        """The name of this shard's manifest."""
        return MANIFEST if self.count == 1 else f"predictions.{self.index}-of-{self.count}.jsonl"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def merge(folders: Sequence[Location], out: Location | None = None) -> tuple[Location, int, int]:
    """Join the manifests of all shards of a run to one.

    Args:
        folders: The `--out` folders of the shards; one, if they all wrote to the same.
        out: The file to write. Default: `predictions.jsonl` in the first folder.

    Returns:
        (the file, number of images, number of images that failed).

    Raises:
        DataError: No manifests, some shards are missing or not finished, or they are not of one run.
        RunError: A manifest cannot be read, or the file cannot be written.
    """
    places = [open_place(folder) for folder in folders]
    found = _find(places)
    seen = {shard: _Seen.of(shard, place) for shard, place in found.items()}
    ends: dict[Shard, Finished] = {shard: each.end for shard, each in seen.items() if each.end}
    for shard, place in found.items():
        _check(shard, place.path(shard.manifest), seen[shard], next(iter(ends.values()), None))
    _check_alike(ends)
    rows = Rows(found)
    target, name = (places[0], MANIFEST) if out is None else open_file(out)
    if name in target.names(name):
        for _ in parse(target, name):
            pass  # what is no manifest is not written over
    with target.locked(name):
        try:
            target.write_parts(name, (dump([image.row]) for image in rows))
        except OSError as error:
            raise RunError(f"{target.path(name)}: cannot be written: {error.strerror}") from None
    write_summary(target, rows)
    images, failed = (
        sum(numbers) for numbers in zip(*((each.rows, each.failed) for each in seen.values()), strict=True)
    )
    return location(target, name), images, failed


@dataclass(frozen=True)
class Rows:
    """The rows of finished manifests, sorted by path, which can be gone through more than once.

    Args:
        places: Where the manifest of each shard is, and its images' files.
    """

    places: Mapping[Shard, Place]

    def __iter__(self) -> Iterator[Done]:
        manifests = (_rows(shard, place) for shard, place in self.places.items())
        return heapq.merge(*manifests, key=lambda image: str(image.row["path"]))


def _rows(shard: Shard, place: Place) -> Iterator[Done]:
    return (Done(row, place) for row, _ in parse(place, shard.manifest) if not isinstance(row, Finished))


@dataclass(frozen=True)
class _Seen:
    """What a shard's manifest holds."""

    rows: int
    failed: int
    end: Finished | None
    foreign: str | None
    """The name of an image that is not of this shard."""
    alike: bool
    """All rows are of one model and of the same options, those of the end."""

    @classmethod
    def of(cls, shard: Shard, place: Place) -> Self:
        rows, failed = 0, 0
        end: Finished | None = None
        foreign: str | None = None
        made: list[list[Any]] = []
        for row, _ in parse(place, shard.manifest):
            if isinstance(row, Finished):
                end = row
                continue
            rows += 1
            failed += row["status"] != "ok"
            if foreign is None and not shard.takes(row["name"]):
                foreign = row["name"]
            by = [row.get("model"), row.get("options")]
            if len(made) <= 1 and by not in made:  # two are too many
                made.append(by)
        alike = end is None or all(by == [end.model, end.options] for by in made)
        return cls(rows, failed, end, foreign, alike)


def _check(shard: Shard, path: str, seen: _Seen, other: Finished | None) -> None:
    """Check that one shard's manifest is finished, whole, and its own; `other` is any that is finished."""
    again = f"run shard {shard} again"
    if seen.end is None:
        expected = f", of {other.total} in all shards" if other else ""
        raise DataError(
            f"{path}: not finished, or being written: {seen.rows} images so far{expected}; wait, or {again}"
        )
    if seen.end.shard != str(shard):
        raise DataError(f"{path}: is the manifest of shard {seen.end.shard}; {again}")
    if seen.end.rows != seen.rows:
        raise DataError(f"{path}: holds {seen.rows} of {seen.end.rows} images; {again}")
    if seen.foreign:
        raise DataError(f"{path}: holds {seen.foreign!r}, which is not of shard {shard}; {again}")
    if not seen.alike:
        raise DataError(f"{path}: holds images of different models or options; {again}, with --overwrite")


def _check_alike(ends: Mapping[Shard, Finished]) -> None:
    """Check that finished shards are of one run."""
    if len({json.dumps([end.model, end.options], sort_keys=True) for end in ends.values()}) > 1:
        raise DataError("the shards were made with different models or options; run them again alike")
    totals = {end.total: shard for shard, end in ends.items()}
    if len({end.names for end in ends.values()}) > 1 or sum(end.images for end in ends.values()) not in totals:
        counts = ", ".join(f"{total} by shard {shard}" for total, shard in list(totals.items())[:SHOWN])
        raise DataError(
            f"the shards saw different images ({counts}): the input is another, or has changed between them; run all "
            "again, what is done is not done again"
        )


def _find(places: Sequence[Place]) -> dict[Shard, Place]:
    """Find the manifests of all shards of one run: where each is."""
    found: dict[Shard, Place] = {}
    for place, name in ((each, name) for each in places for name in each.names("predictions.")):
        match = re.fullmatch(r"predictions\.(.+)-of-(.+)\.jsonl", name)
        if match is None:
            continue
        try:
            shard = Shard.parse(f"{match[1]}/{match[2]}")
        except DataError:
            raise DataError(f"{place.path(name)}: there is no such shard; remove the file") from None
        if shard in found:
            raise DataError(
                f"{found[shard].path(name)} and {place.path(name)} are the same shard; name one of the two folders"
            )
        found[shard] = place
    if not found:
        where = ", ".join(place.path() for place in places)
        raise DataError(f"no manifests of shards in {where} (predictions.1-of-4.jsonl and so on)")
    counts = {shard.count for shard in found}
    if len(counts) > 1:
        names = ", ".join(shard.manifest for shard in list(found)[:SHOWN])
        raise DataError(f"shards of different runs: {names}{' and more' if len(found) > SHOWN else ''}")
    (count,) = counts
    missing = [shard for index in range(1, count + 1) if (shard := Shard(index, count)) not in found]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        names = ", ".join(map(str, missing[:SHOWN]))
        raise DataError(f"shard {names}{more} is missing; run 'alserve segment' with --shard {missing[0]}")
    return found
