"""The manifest of a folder run: a JSON object an image, enough to tell what is done and what has to be done again.

A row is added as soon as its image's files are written, so that a run that was killed continues where it stopped. Only
whole lines count: what a full disk or a kill leaves of a line is cut off. The manifest of a shard ends with a line that
says that the shard is finished, and what it is a part of.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from alserve.errors import RunError
from alserve.files import irregular, locked, remove_unfinished, write_atomic
from alserve.places.disk import Disk
from alserve.places.place import Place, SizeOf, Version

if TYPE_CHECKING:
    from alserve.folder.planned import Plan, PlannedImage

MANIFEST = "predictions.jsonl"

ManifestRow = dict[str, Any]


class Finished(BaseModel):
    """The last line of a shard's manifest: the shard is finished, and all its rows stand before this line."""

    model_config = ConfigDict(strict=True, extra="forbid")

    shard: str
    """Which one, as "I/N"."""
    rows: int
    """Rows of this manifest."""
    images: int
    """Images of this shard in the input; rows of images that have gone since an earlier run are not counted."""
    total: int
    """Images of all shards in the input."""
    names: str
    """Hash of the names of all shards' images."""
    model: str
    """SHA-256 of the model file."""
    options: dict[str, Any]
    """What else decides the content of the files."""

    @classmethod
    def of(cls, planned: "Plan", made_by: Mapping[str, Any]) -> Self:
        """Return the line of a shard that is done, but for its number of rows."""
        return cls(
            shard=str(planned.shard),
            rows=0,
            images=len(planned.images),
            total=planned.total,
            names=planned.names,
            **made_by,
        )


class _CheckedRow(BaseModel):
    """What a row is checked for; it can hold more."""

    model_config = ConfigDict(strict=True)

    path: str
    name: str
    status: str
    bytes: int | None
    mtime_ns: int | None
    sha256: str | None
    output_bytes: dict[str, int] | None = None


class _DoneImage(NamedTuple):
    version: Version
    sizes: Mapping[str, int]
    """Bytes of each output file; none in rows of version 0.1.0."""


class Manifest:
    """The rows of a folder run on disk; new ones are added as their images are done. One process at a time has it open.

    Args:
        path: The file; continued if it is there.
        model: SHA-256 of the model file.
        options: What else decides the content of the files.
        overwrite: Begin anew, whatever is there.

    Raises:
        RunError: The file holds the results of another model or of other options, is in use by another process, or
            cannot be written.
    """

    def __init__(self, path: Path, *, model: str, options: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path = path
        self.made_by: dict[str, Any] = {"model": model, "options": dict(options)}
        self._done: dict[str, _DoneImage] = {}
        self._last = ""
        self._in_order = True
        self._rows = 0
        self._finished: Finished | None = None
        with ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                opened.enter_context(locked(path))
                remove_unfinished([path])
                if kind := irregular(path):
                    raise RunError(f"{path}: is a {kind}, no manifest; use another --out")
                if path.is_symlink():
                    raise RunError(f"{path}: is a link, and what it leads to is not written; use another --out")
                if overwrite:
                    path.unlink(missing_ok=True)  # it may have another name elsewhere, whose content is to stay
                path.touch()
                self._file = opened.enter_context(path.open("r+b"))
                whole = 0 if overwrite else self._continue()
                self._file.truncate(whole)
                self._file.seek(whole)
            except OSError as error:
                raise self._unwritable(error) from None
            self._opened = opened.pop_all()

    def _continue(self) -> int:
        """Take over what an earlier run did; return the length of its rows in bytes, 0 to begin anew."""
        rows, _, whole = read(Disk(self.path.parent), self.path.name)
        for row in rows:
            if row["status"] == "ok":
                check_made_by(str(self.path), row, self.made_by)
        if rows and not any(row["status"] == "ok" for row in rows):
            return 0  # nothing is there that could be mixed, and all will be tried again
        for row in rows:
            self._in_order = False
            if row["status"] == "ok" and row["bytes"] is not None and row["mtime_ns"] is not None:
                version = Version(row["bytes"], row["mtime_ns"], row["sha256"])
                self._done[row["name"]] = _DoneImage(version, row.get("output_bytes") or {})
            else:
                self._done.pop(row["name"], None)
        return whole

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: cannot be written: {error.strerror}")

    def is_done(self, image: "PlannedImage", there: SizeOf) -> bool:
        """Tell whether an image is done: noted so, not changed since, and its output files as they were written.

        Args:
            image: The image. Where only its time has changed, it is read, and its hash decides.
            there: Tells the size of an output file.
        """
        done = self._done.get(image.name)
        return done is not None and is_unchanged(image, there, done.version, done.sizes)

    def add(self, row: ManifestRow) -> None:
        """Add a row; it is on its way to the disk when this returns.

        Raises:
            RunError: The file cannot be written.
        """
        self._in_order &= row["path"] >= self._last
        self._last = row["path"]
        self._rows += 1
        self._write({**row, **self.made_by})

    def _write(self, record: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from None

    def finish(self, planned: "Plan") -> None:
        """Note at the end, when all else is written, that all is done; see `Finished` for a shard."""
        if planned.shard.count > 1:
            self._finished = Finished.of(planned, self.made_by)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            try:
                if self._in_order:
                    self._end()
                else:
                    self._file.close()
                    self._sort()
            except OSError as failure:
                if kind is None:
                    raise self._unwritable(failure) from None

    def _end(self) -> None:
        if self._finished:
            self._write({"finished": {**self._finished.model_dump(), "rows": self._rows}})
        self._file.close()

    def _sort(self) -> None:
        """Write the last row of every image, as an undisturbed run has them."""
        rows: list[ManifestRow] = latest(read(Disk(self.path.parent), self.path.name).rows)
        if self._finished:
            rows.append({"finished": {**self._finished.model_dump(), "rows": len(rows)}})
        write_atomic(self.path, dump(rows))


def is_unchanged(image: "PlannedImage", there: SizeOf, noted: Version, sizes: Mapping[str, int]) -> bool:
    """Tell whether an image and its output files are as they were noted.

    Args:
        image: The image.
        there: Tells the size of an output file.
        noted: The image's state; of the hash, the beginning is enough.
        sizes: Bytes of its output files by the name of their output, as far as they are known.
    """
    now = image.look()
    if now is None or now.bytes != noted.bytes:
        return False
    if now.mtime_ns != noted.mtime_ns:
        try:
            digest = hashlib.sha256(image.place.read(image.source, now.bytes)).hexdigest()
        except OSError:
            return False
        if not noted.sha256 or not digest.startswith(noted.sha256):
            return False
    found = {word: there(target) for word, target in image.targets.items()}
    return all(size is not None and size == sizes.get(word, size) for word, size in found.items())


def check_made_by(path: str, row: ManifestRow, made_by: Mapping[str, Any]) -> None:
    """Check that a row was made as all others will be.

    Args:
        path: The manifest, for the message.
        row: Of an image that is done.
        made_by: Model and options, as in the row.

    Raises:
        RunError: It was made by another model or with other options.
    """
    for what, now in made_by.items():
        if row.get(what) != now:
            raise RunError(
                f"{path}: holds results of another model or of other options "
                f"({what} was {_shown(row.get(what))}, now {_shown(now)}); use --overwrite or another --out"
            )


def latest(rows: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Keep the last row of every image, sorted as an undisturbed run has them."""
    return sorted({row["name"]: row for row in rows}.values(), key=lambda row: str(row["path"]))


def dump(rows: Iterable[ManifestRow]) -> bytes:
    """Return rows as the bytes of a manifest."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


class Content(NamedTuple):
    """What a manifest holds."""

    rows: list[ManifestRow]
    finished: Finished | None
    """The last line of a finished shard."""
    rows_bytes: int
    """Length of the rows in bytes: what follows is that last line, or what was left of a line."""


def read(place: Place, name: str) -> Content:
    """Read the whole lines of a manifest.

    Raises:
        RunError: It cannot be read, or holds something else.
    """
    rows: list[ManifestRow] = []
    finished: Finished | None = None
    whole = 0
    for row, length in parse(place, name):
        if isinstance(row, Finished):
            finished = row
        else:
            rows.append(row)
            whole += length
    return Content(rows, finished, whole)


def parse(place: Place, name: str) -> Iterator[tuple[ManifestRow | Finished, int]]:
    """Read the whole lines of a manifest, one by one, each with its length in bytes; raises as `read` does."""
    path, finished = place.path(name), False
    try:
        for number, line in enumerate(place.lines(name), 1):
            if not line.endswith(b"\n"):
                break
            row = _parse(line)
            if row is None or finished:
                raise RunError(f"{path}: line {number} is no row of a manifest; use --overwrite or another --out")
            finished = isinstance(row, Finished)
            yield row, len(line)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


def _parse(line: bytes) -> ManifestRow | Finished | None:
    """Read a line of a manifest; None if it is none."""
    try:
        row = json.loads(line)
        if "finished" in row:
            return Finished.model_validate(row["finished"])
        checked = _CheckedRow.model_validate(row)
    except (ValueError, TypeError, RecursionError):  # pydantic's ValidationError is a ValueError
        return None
    name = PurePosixPath(checked.name)
    inside = name.name and not name.is_absolute() and ".." not in name.parts
    return row if inside and _is_shallow(row) else None


def _is_shallow(value: object, levels: int = 8) -> bool:
    """Tell whether JSON is nested at most this many levels deep: deeper, it could be read but not written."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not inner or (levels > 0 and all(_is_shallow(item, levels - 1) for item in inner))


def _shown(value: object) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)
