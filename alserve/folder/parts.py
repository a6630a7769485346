"""The manifest of a run into an object store, which cannot append: rows are written in parts, and merged at the end.

A part is an object of its own beside the manifest (predictions.parts/), put every `PART_ROWS` rows or `PART_SECONDS`
seconds. A run that is killed loses the rows that are in no part yet: their images are done again. What is done is kept
in arrays, some 50 bytes an image.
"""

import heapq
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from alserve.errors import RunError
from alserve.folder.manifest import Finished, ManifestRow, check_made_by, is_unchanged, latest, parse, read
from alserve.places.compact import Table
from alserve.places.place import Place, SizeOf, Version
from alserve.places.store import Store

if TYPE_CHECKING:
    from alserve.folder.planned import Plan, PlannedImage

PART_ROWS, PART_SECONDS = 2000, 30.0
"""Rows that are put together, and seconds after which fewer are."""

_NOT_DONE, _UNKNOWN = -1, -1
"""In place of the bytes of an image, and of an output file."""

_Key = tuple[str, str]
"""Path and name: what rows are sorted by."""


class _Part(NamedTuple):
    first: _Key
    """The lowest key of its rows."""
    number: int
    """Of rows of the same name those of the highest part hold."""
    name: str


class PartsManifest:
    """The rows of a folder run in an object store; see `alserve.folder.manifest.Manifest`.

    Args:
        store: The output folder.
        name: The name of the manifest.
        model: SHA-256 of the model file.
        options: What else decides the content of the files.
        overwrite: Begin anew, whatever is there.

    Raises:
        RunError: It holds the results of another model or of other options, is in use by another process, or cannot be
            written.
    """

    def __init__(
        self, store: Store, name: str, *, model: str, options: Mapping[str, Any], overwrite: bool = False
    ) -> None:
        self.path = store.path(name)
        self.made_by: dict[str, Any] = {"model": model, "options": dict(options)}
        self._store, self._name, self._folder = store, name, parts_of(name)
        self._words: Sequence[str] = options["save"]
        self._done = Table(3 + len(self._words))
        self._latest = Table()
        self._parts: list[_Part] = []
        self._objects: list[str] = []
        self._rows: list[tuple[_Key, bytes]] = []
        self._due = time.monotonic() + PART_SECONDS
        self._earlier: Finished | None = None
        self._finished: Finished | None = None
        self._complete = False
        with ExitStack() as opened:
            self._lock = opened.enter_context(store.locked(name))
            try:
                self._objects = _sources(store, name)
                if overwrite or not self._continue():
                    self._remove(self._objects)
                    self._done, self._latest, self._parts = Table(3 + len(self._words)), Table(), []
                    self._objects = [self._write_part(b"")]  # whoever finds files here knows whose they are
            except OSError as error:
                raise self._unwritable(error) from None
            self._opened = opened.pop_all()

    def _continue(self) -> bool:
        """Take over what earlier runs did; return whether there is any."""
        any_ok = False
        for source in self._objects:
            first: _Key | None = None
            number = len(self._parts)
            for row, _ in parse(self._store, source):
                if isinstance(row, Finished):
                    self._earlier = row
                    continue
                if row["status"] == "ok":
                    any_ok = True
                    check_made_by(self.path, row, self.made_by)
                key = (row["path"], row["name"])
                first = key if first is None else min(first, key)
                self._note(row, number)
            if first is not None:
                self._parts.append(_Part(first, number, source))
        return any_ok

    def _note(self, row: ManifestRow, number: int) -> None:
        self._latest.add(row["name"], number)
        self._done.add(row["name"], *(_numbers(row, self._words) or [_NOT_DONE] * (3 + len(self._words))))

    def is_done(self, image: "PlannedImage", there: SizeOf) -> bool:
        """See `alserve.folder.manifest.Manifest.is_done`."""
        done = self._done.get(image.name)
        if done is None or done[0] == _NOT_DONE:
            return False
        size, mtime_ns, beginning, *sizes = done
        noted = Version(size, mtime_ns, beginning.to_bytes(8, signed=True).hex())
        known = {word: size for word, size in zip(self._words, sizes, strict=True) if size != _UNKNOWN}
        return is_unchanged(image, there, noted, known)

    def add(self, row: ManifestRow) -> None:
        """Add a row; it is safe when the part that it is in has been put.

        Raises:
            RunError: The part cannot be written, or another process has begun to write here.
        """
        self._lock.check()
        line = json.dumps({**row, **self.made_by}).encode() + b"\n"
        self._rows.append(((row["path"], row["name"]), line))
        self._latest.add(row["name"], len(self._parts))
        if len(self._rows) >= PART_ROWS or time.monotonic() >= self._due:
            self._put()

    def _put(self) -> None:
        """Write the rows that are in no part yet as one."""
        self._due = time.monotonic() + PART_SECONDS
        if not self._rows:
            return
        self._rows.sort()
        try:
            name = self._write_part(b"".join(line for _, line in self._rows))
        except OSError as error:
            raise self._unwritable(error) from None
        self._parts.append(_Part(self._rows[0][0], len(self._parts), name))
        self._objects.append(name)
        self._rows = []

    def _write_part(self, data: bytes) -> str:
        """Write an object that nobody else writes, behind all that are there; return its name."""
        name = f"{self._folder}{time.time_ns():020}-{secrets.token_hex(4)}.jsonl"
        self._store.write(name, data)
        return name

    def finish(self, planned: "Plan") -> None:
        """Note at the end, when all else is written, that all is done; see `Finished` for a shard."""
        self._complete = True
        if planned.shard.count > 1:
            self._finished = Finished.of(planned, self.made_by)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            try:
                self._put()
                if self._complete and kind is None:
                    self._merge()
            except RunError:
                if kind is None:
                    raise
            except OSError as failure:
                if kind is None:
                    raise self._unwritable(failure) from None

    def _merge(self) -> None:
        """Write all rows as one manifest, as a run on a disk has them, and remove the parts."""
        merged = [name for name in self._objects if name != self._name]
        end = self._finished and self._finished.model_copy(update={"rows": self._count()})
        if not merged and end == self._earlier and self._parts:
            return
        self._store.write_parts(self._name, self._lines(end))
        self._remove(merged)

    def _count(self) -> int:
        return self._latest.count()

    def _lines(self, end: Finished | None) -> Iterator[bytes]:
        yield from (line for _, _, line in self._sorted())
        if end:
            yield json.dumps({"finished": end.model_dump()}).encode() + b"\n"

    def _sorted(self) -> Iterator[tuple[_Key, int, bytes]]:
        """Go through the last row of every image in order; a part is opened when its first row is due."""
        waiting = sorted(self._parts, reverse=True)
        opened: list[tuple[_Key, int, bytes, Iterator[tuple[_Key, int, bytes]]]] = []
        while waiting or opened:
            while waiting and (not opened or waiting[-1].first <= opened[0][0]):
                rows = self._rows_of(waiting.pop())
                if (row := next(rows, None)) is not None:
                    heapq.heappush(opened, (*row, rows))
            if not opened:
                continue
            key, number, line, rows = opened[0]
            if self._latest.get(key[1]) == [number]:
                yield key, number, line
            if (row := next(rows, None)) is None:
                heapq.heappop(opened)
            else:
                heapq.heapreplace(opened, (*row, rows))

    def _rows_of(self, part: _Part) -> Iterator[tuple[_Key, int, bytes]]:
        for row, _ in parse(self._store, part.name):
            if not isinstance(row, Finished):
                yield (row["path"], row["name"]), part.number, json.dumps(row).encode() + b"\n"

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            self._store.remove(name)

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: cannot be written: {error.strerror}")


def parts_of(name: str) -> str:
    """Return the folder of a manifest's parts, with a slash at its end."""
    return f"{name.removesuffix('.jsonl')}.parts/"


def has_manifest(place: Place) -> bool:
    """Tell whether there are results of a run in a place, in a store those in parts included."""
    names = place.starting("predictions") if isinstance(place, Store) else place.names("predictions")
    return any(name.endswith(".jsonl") for name in names)


def read_rows(place: Place, name: str) -> list[ManifestRow]:
    """Read all rows of a manifest, those in parts included.

    Raises:
        RunError: It cannot be read.
    """
    if not isinstance(place, Store):
        return read(place, name).rows
    sources = _sources(place, name)
    return latest([row for source in sources for row in read(place, source).rows])


def _sources(store: Store, name: str) -> list[str]:
    """Return the objects that hold rows of a manifest, from the earliest to the latest."""
    try:
        whole = [name] if name in store.names(name) else []
        return whole + list(store.starting(parts_of(name)))
    except OSError as error:
        raise RunError(f"{store.path(name)}: cannot be read: {error.strerror}") from None


def _numbers(row: ManifestRow, words: Sequence[str]) -> list[int] | None:
    """Return bytes, time, beginning of the hash, and the bytes of each output file; None if the image is not done."""
    sizes = row.get("output_bytes") or {}
    try:
        numbers = [
            row["bytes"],
            row["mtime_ns"],
            _beginning(row["sha256"]),
            *(sizes.get(word, _UNKNOWN) for word in words),
        ]
    except (TypeError, ValueError):
        return None
    fits = row["status"] == "ok" and all(isinstance(each, int) and abs(each) < 1 << 63 for each in numbers)
    return numbers if fits else None


def _beginning(sha256: str) -> int:
    return int.from_bytes(bytes.fromhex(sha256)[:8], signed=True)
