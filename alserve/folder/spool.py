"""Many things in a temporary file, where their number would not fit in memory."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Spool(Generic[Item]):
    """Things that are added one by one, and can be gone through more than once; the file goes with this object.

    Args:
        dump: Turns one into a list that JSON can hold.
        load: Makes one of such a list.
    """

    def __init__(self, dump: Callable[[Item], list[Any]], load: Callable[[list[Any]], Item]) -> None:
        self._dump, self._load = dump, load
        self._folder = TemporaryDirectory(prefix="alserve-", ignore_cleanup_errors=True)
        self._path = Path(self._folder.name) / "items.jsonl"
        self._file = self._path.open("wb")
        self._count = 0

    def add(self, item: Item) -> None:
        """Add one.

        Raises:
            OSError: The disk of temporary files is full.
        """
        self._file.write(json.dumps(self._dump(item)).encode() + b"\n")
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        self._file.flush()
        with self._path.open("rb") as file:
            for line in file:
                yield self._load(json.loads(line))
