"""The memory that answers of unfinished batches take: all of them together within a limit."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from alserve.errors import ImageSizeError


class BatchMemory:
    """The memory of all batches of a worker process; used in one event loop.

    A small file can make large pictures: 64 images of 500 kB, as a JPEG of few colours is, make 3 GB of them.

    Args:
        limit: Number of characters that the answers may have together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    @contextmanager
    def batch(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Hold the answers of one batch for the time of the block.

        Yields:
            What counts each answer; it raises ImageSizeError where the limit is reached.
        """
        mine = 0

        def hold(answer: Mapping[str, Any]) -> None:
            nonlocal mine
            size = _characters(answer)
            if self._held + size > self._limit:
                raise ImageSizeError(
                    f"the answers of all batches at once take more than {self._limit // 2**20} MiB; send fewer images, "
                    "or ask for fewer pictures with include"
                )
            self._held += size
            mine += size

        try:
            yield hold
        finally:
            self._held -= mine


def _characters(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return len(value) if isinstance(value, str) else 0
