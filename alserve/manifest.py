"""The manifest of a folder run: a JSON object an image, enough to tell what is done and what has to be done again.

A row is added as soon as its pictures are written, so that a run that was killed continues where it stopped. Only
whole lines count: what a full disk or a kill leaves of a line is cut off.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from alserve.errors import DataError, RunError
from alserve.files import write_atomic

MANIFEST = "predictions.jsonl"

Row = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a folder; each image belongs to one of them by its name alone."""

    index: int = 1
    """From 1 to `count`."""
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "I/N".

        Raises:
            DataError: It is none, or I is not from 1 to N.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise DataError(f"--shard '{text}': give I/N, with I from 1 to N, such as 1/4")
        return cls(int(match[1]), int(match[2]))

    def takes(self, name: str) -> bool:
        """Tell whether an image is of this shard, whatever other images there are.

        Args:
            name: The image's name relative to the folder it was found in.
        """
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1

    @property
    def manifest(self) -> str:
        """The name of this shard's manifest."""
        return MANIFEST if self.count == 1 else f"predictions.{self.index}-of-{self.count}.jsonl"


class Version(NamedTuple):
    """The state of an input file: as long as it is the same, its pictures need not be made again."""

    bytes: int
    mtime_ns: int
    sha256: str | None = None
    """Hash of the content, where it has been read."""

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Look at a file without reading it; None if it is not there."""
        try:
            status = path.stat()
        except OSError:
            return None
        return cls(status.st_size, status.st_mtime_ns)


class Manifest:
    """The rows of a folder run on disk; new ones are added as their images are done.

    Args:
        path: The file; continued if it is there.
        model: SHA-256 of the model file.
        options: What else decides the pictures' content.
        overwrite: Begin anew, whatever is there.

    Raises:
        RunError: The file holds the results of another model or of other options, or cannot be written.
    """

    def __init__(self, path: Path, *, model: str, options: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path = path
        self.made_by = {"model": model, "options": dict(options)}
        self._done: dict[str, Version] = {}
        self._last = ""
        self._in_order = True
        rows, whole = ([], 0) if overwrite or not path.exists() else _read(path)
        for row in rows:
            self._check(row)
            self._in_order = False
            if row["status"] == "ok":
                self._done[row["name"]] = Version(row["bytes"], row["mtime_ns"], row["sha256"])
            else:
                self._done.pop(row["name"], None)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file = path.open("r+b")
            self._file.truncate(whole)
            self._file.seek(whole)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}") from None

    def _check(self, row: Row) -> None:
        for what, now in self.made_by.items():
            if row.get(what) != now:
                raise RunError(
                    f"{self.path}: holds results of another model or of other options "
                    f"({what} was {_shown(row.get(what))}, now {_shown(now)}); use --overwrite or another --out"
                )

    def holds(self, name: str, source: Path, targets: Iterable[Path]) -> bool:
        """Tell whether an image is done: noted as such, not changed since, and all its pictures there.

        Args:
            name: The name of its pictures.
            source: The image. Where only its time has changed, it is read, and its hash decides.
            targets: Where its pictures are.
        """
        then, now = self._done.get(name), Version.of(source)
        if then is None or now is None or now.bytes != then.bytes:
            return False
        same = now.mtime_ns == then.mtime_ns or hashlib.sha256(source.read_bytes()).hexdigest() == then.sha256
        return same and all(target.exists() for target in targets)

    def add(self, row: Row) -> None:
        """Add a row; it is on its way to the disk when this returns.

        Raises:
            RunError: The file cannot be written.
        """
        self._in_order &= row["path"] >= self._last
        self._last = row["path"]
        line = json.dumps({**row, **self.made_by}).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError:
            if kind is None:
                raise
        else:
            if not self._in_order:
                write_atomic(self.path, dump(_latest(_read(self.path)[0])))


def _latest(rows: Sequence[Row]) -> list[Row]:
    """Keep the last row of every image, sorted as an undisturbed run has them."""
    return sorted({row["name"]: row for row in rows}.values(), key=lambda row: str(row["path"]))


def dump(rows: Iterable[Row]) -> bytes:
    """Give rows as the bytes of a manifest."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _read(path: Path) -> tuple[list[Row], int]:
    """Read a manifest's whole lines; give them with their length in bytes."""
    rows: list[Row] = []
    whole = 0
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    for line in _lines(data):
        try:
            row = json.loads(line)
            _ = row["name"], row["path"], row["status"], row["bytes"], row["mtime_ns"], row["sha256"]
        except (ValueError, KeyError, TypeError):
            number = len(rows) + 1
            raise RunError(f"{path}: line {number} is no row of a manifest; use --overwrite or another --out") from None
        rows.append(row)
        whole += len(line)
    return rows, whole


def _lines(data: bytes) -> Iterator[bytes]:
    return (line for line in data.splitlines(keepends=True) if line.endswith(b"\n"))


def _shown(value: object) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)


def merge(folders: Sequence[Path], out: Path | None = None) -> tuple[Path, int, int]:
    """Join the manifests of all shards of a run to one.

    Args:
        folders: The `--out` folders of the shards; one, if they all wrote to the same.
        out: The file to write; `predictions.jsonl` in the first folder if left out.

    Returns:
        (the file, number of images, number of images that failed).

    Raises:
        DataError: No manifests, some shards are missing, or they are not of one run.
        RunError: A manifest cannot be read.
    """
    found: dict[tuple[int, int], Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("predictions.*-of-*.jsonl")):
            if match := re.fullmatch(r"predictions\.(\d+)-of-(\d+)\.jsonl", path.name):
                shard = int(match[1]), int(match[2])
                if shard in found:
                    raise DataError(f"{found[shard]} and {path} are the same shard; name one of the two folders")
                found[shard] = path
    if not found:
        raise DataError(
            f"no manifests of shards in {', '.join(map(str, folders))} (predictions.1-of-4.jsonl and so on)"
        )
    counts = {count for _, count in found}
    if len(counts) > 1:
        raise DataError(f"shards of different runs: {', '.join(path.name for path in found.values())}")
    (count,) = counts
    if missing := [f"{index}/{count}" for index in range(1, count + 1) if (index, count) not in found]:
        raise DataError(f"shard {', '.join(missing)} is missing; run 'alserve segment' with --shard {missing[0]}")
    rows: list[Row] = []
    for path in found.values():
        rows += _read(path)[0]
    makers = {json.dumps([row.get("model"), row.get("options")]) for row in rows}
    if len(makers) > 1:
        raise DataError("the shards were made with different models or options; run them again alike")
    rows = _latest(rows)
    path = out or folders[0] / MANIFEST
    write_atomic(path, dump(rows))
    return path, len(rows), sum(row["status"] != "ok" for row in rows)
