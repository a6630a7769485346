"""The actors of a run on a Ray cluster, as the driver sees them: which blocks each has, which are lost, which join.

A block whose actor or machine is lost is done again by another: output files are whole or not there, and a row is
named by its image.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import Any, Self

from alserve.errors import AlserveError, RunError
from alserve.folder.engines import Batch
from alserve.folder.manifest import ManifestRow
from alserve.ray_connection import first_words

BLOCKS_AHEAD = 2
"""Blocks that an actor has: one that it does, and one that waits for it."""

MOST_TRIES = 5
"""How many actors have a block, one after the other, that are all lost: it may be what ends them."""

PATIENCE_SECONDS = 600
"""How long a run whose machines are all lost waits for others."""

_GROW_SECONDS = 3.0
"""Interval at which it is looked for machines that have joined."""

_WAIT_SECONDS = 0.2
"""Interval at which it is looked whether the run is to stop."""


@dataclass
class _Block:
    """Work for an actor, and how many have been asked to do it."""

    batches: Sequence[Batch]
    tries: int = 0


@dataclass
class _Call:
    """What an actor was asked to do; without a block it is asked whether it has started."""

    actor: Any
    block: _Block | None


class Pool:
    """Actors, as many as there is room for; they end with the context.

    Args:
        start: Starts an actor of `ray_actor.Actor`, as soon as there is room for it.
        room: Returns the number of actors that there is room for now.
    """

    def __init__(self, start: Callable[[], Any], room: Callable[[], int]) -> None:
        self._start, self._room = start, room
        self._actors: list[Any] = []
        self._free: deque[Any] = deque()
        self._calls: dict[Any, _Call] = {}
        self._again: list[_Block] = []
        self._look = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            _end(actor)

    def do(self, blocks: Iterable[Sequence[Batch]], stop: Event) -> Iterator[Sequence[ManifestRow]]:
        """Do blocks, and return the rows of each as it is done; a block is asked for when an actor can have it.

        Args:
            blocks: What to do.
            stop: When set, what is under way is lost.

        Raises:
            AlserveError: Something stands in the way of all images.
        """
        rest = map(_Block, blocks)
        heard = time.monotonic()
        while not stop.is_set():
            self._grow()
            self._send(rest)
            busy = any(call.block for call in self._calls.values())
            if self._free and not busy:
                return
            if busy:
                heard = time.monotonic()
            elif time.monotonic() - heard > PATIENCE_SECONDS:
                raise RunError(
                    f"no worker of the cluster has started for {PATIENCE_SECONDS} s; the same command continues the run"
                )
            yield from self._collect()

    def _grow(self) -> None:
        """Start actors where machines have joined, or in place of lost ones."""
        if time.monotonic() < self._look:
            return
        self._look = time.monotonic() + _GROW_SECONDS
        for _ in range(self._room() - len(self._actors)):
            actor = self._start()
            self._actors.append(actor)
            self._calls[actor.do.remote([])] = _Call(actor, None)

    def _send(self, rest: Iterator[_Block]) -> None:
        """Send blocks to the actors that can have one."""
        while self._free:
            block = self._again.pop() if self._again else next(rest, None)
            if block is None:
                return
            actor = self._free.popleft()
            block.tries += 1
            self._calls[actor.do.remote(block.batches)] = _Call(actor, block)

    def _collect(self) -> Iterator[Sequence[ManifestRow]]:
        """Wait a moment for an answer, and return its rows."""
        import ray  # noqa: PLC0415  an extra

        if not self._calls:
            time.sleep(_WAIT_SECONDS)
            return
        answered, _ = ray.wait(list(self._calls), timeout=_WAIT_SECONDS)
        for answer in answered:
            call = self._calls.pop(answer)
            try:
                found = ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                raise RunError(f"Ray has ended the run: {first_words(error)}; the same command continues it") from None
            except ray.exceptions.RayError as error:
                self._lose(call, error)
                continue
            if isinstance(found, AlserveError):
                raise found
            self._free.extend([call.actor] * (1 if call.block else BLOCKS_AHEAD))
            if found:
                yield found

    def _lose(self, call: _Call, error: Exception) -> None:
        """Let others do what a lost actor was asked to do.

        Raises:
            RunError: Too many that were asked for it are lost.
        """
        if call.actor in self._actors:
            self._actors.remove(call.actor)
            self._free = deque(each for each in self._free if each is not call.actor)
            _end(call.actor)  # one that cannot be reached may still run
        if call.block is None:
            return
        if call.block.tries >= MOST_TRIES:
            image = call.block.batches[0][0].path
            raise RunError(
                f"{image} and the images after it have ended {MOST_TRIES} workers of the cluster "
                f"({first_words(error)}); the same command continues the run"
            )
        self._again.append(call.block)


def _end(actor: Any) -> None:  # noqa: ANN401  Ray's types are of an extra
    import ray  # noqa: PLC0415  an extra

    with suppress(Exception):  # it is lost, or Ray is
        ray.kill(actor)
