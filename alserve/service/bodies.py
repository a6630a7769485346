"""How a request's body comes in: within limits of size, time and rate, and of memory over all requests."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from anyio import CancelScope, move_on_after
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from alserve.service.settings import MAX_BODY_BYTES, ServiceSettings


@dataclass(eq=False)
class _Body:
    begun: float = field(default_factory=time.monotonic)
    size: int = 0
    """Bytes that are held of it."""
    dropped: bool = False
    waiting: CancelScope = field(default_factory=CancelScope)
    """Around the wait for its next part."""


class Bodies:
    """The request bodies that a worker process holds; used in one event loop.

    A body has a total time limit and one between its parts, and must come at a minimum rate. Where all bodies together
    take too much memory, the unfinished one that began first is dropped: those of clients that send at once are young.

    Args:
        settings: Limits.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._held = 0
        self._unfinished: dict[_Body, None] = {}  # in the order in which they began

    @contextmanager
    def receiving(self, request: Request) -> Iterator[Request]:
        """Hold a request's body for the time of the block, at whose end its memory counts no more.

        Yields:
            The request, whose body is received within the limits; reading it raises HTTPException: 408 for what is too
            slow, 413 for what is too large, 429 for what is dropped.
        """
        body = _Body()
        self._unfinished[body] = None

        async def receive() -> Message:
            return await self._receive(request, body)

        try:
            yield Request(request.scope, receive)
        finally:
            self._unfinished.pop(body, None)
            self._held -= body.size

    async def _receive(self, request: Request, body: _Body) -> Message:
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            raise _too_large()
        message = await self._next(request, body)
        arrived = len(message.get("body", b""))
        if body.size + arrived > MAX_BODY_BYTES:
            raise _too_large()
        body.size += arrived
        self._held += arrived
        while self._held > self._settings.body_bytes and self._unfinished:
            self._drop(next(iter(self._unfinished)))
        if body.dropped:
            raise _dropped()
        if not message.get("more_body"):
            self._unfinished.pop(body, None)
        return message

    def _drop(self, body: _Body) -> None:
        """Forget a body, and wake up who waits for more of it."""
        del self._unfinished[body]
        self._held -= body.size
        body.size, body.dropped = 0, True
        body.waiting.cancel()

    async def _next(self, request: Request, body: _Body) -> Message:
        """Wait for the next part of a body, no longer than it may take."""
        limits, waited = self._settings, time.monotonic() - body.begun
        seconds, fault = min(
            (limits.timeout - waited, f"the request did not arrive within {limits.timeout:g} s"),
            (limits.idle, f"nothing more of the request came for {limits.idle:g} s"),
            (
                limits.idle + (body.size / limits.rate if limits.rate else math.inf) - waited,
                f"the request came at less than {limits.rate:g} bytes a second",
            ),
        )
        with move_on_after(max(0, seconds)) as body.waiting:
            return await request.receive()
        raise _dropped() if body.dropped else HTTPException(408, fault)


def _too_large() -> HTTPException:
    return HTTPException(413, f"the request is larger than {MAX_BODY_BYTES // 2**20} MiB; send a smaller image")


def _dropped() -> HTTPException:
    return HTTPException(429, "too much is being uploaded at once; try again later", {"Retry-After": "1"})
