"""The connections of the service: uvicorn's HTTP/1.1, with limits of time and number."""

import asyncio
import json
from typing import Any, ClassVar, cast

import h11
import uvicorn.config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from alserve.service.settings import ServiceSettings

LINGER_SECONDS = 2
"""Time in which a client may take the answer to a request that it has not sent to its end."""

LINGER_BYTES = 4 * 2**20
"""What it may send meanwhile."""

SLICE_BYTES = 16 * 2**10
"""What is taken in at a time."""

OVERHEAD = 4
"""Times the bytes of its body that a request may come in, once there are `OVERHEAD_BYTES` more."""

OVERHEAD_BYTES = 64 * 2**10


def limit_connections(settings: ServiceSettings) -> None:
    """Have uvicorn use `LimitedProtocol` in this process, wherever it is not told to use another.

    BentoML starts uvicorn without a choice of its protocol.

    Args:
        settings: The limits.
    """
    LimitedProtocol.settings = settings
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{LimitedProtocol.__module__}:{LimitedProtocol.__name__}"


class LimitedProtocol(H11Protocol):
    """One connection.

    A request's head must arrive in time, and the answer be fetched at a minimum rate. Where there are too many
    connections, the one that has kept us waiting longest for a request or its end is closed, so that those that say
    nothing, or little, keep out nobody; answers that are not fetched hold bounded memory. WebSockets are not spoken.
    """

    settings: ClassVar[ServiceSettings]

    waiting_since: float
    """When it last came to be the client's turn, or a request began: time of the event loop, in seconds."""
    blocked_since: float
    """When its answer began to wait for the client, as `waiting_since`."""
    is_counted: bool
    """Whether it is one of the open connections, not cut already."""

    def __init__(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **more)
        self._head_timer: asyncio.TimerHandle | None = None
        self.waiting_since = self.loop.time()
        self._wrapped: _LingeringTransport
        self.is_counted = True
        self.blocked_since = 0.0
        self._overhead = 0  # bytes beyond what may come with those of the body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; make room for this connection."""
        self._wrapped = _LingeringTransport(cast("asyncio.Transport", transport), self)
        super().connection_made(cast("asyncio.Transport", self._wrapped))
        self._wait_for_head()
        connections = [other for other in self.connections if isinstance(other, LimitedProtocol) and other.is_counted]
        if len(connections) <= self.settings.worker_connections:  # this one is among them
            return
        if waiting := [other for other in connections if other is not self and other.is_waiting]:
            min(waiting, key=lambda other: other.waiting_since).abort()
        else:
            self._refuse(503, "too many connections; try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting_for_head()
        self._wrapped.stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        if self._wrapped.is_lingering:
            self._wrapped.discard(data)
            return
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()
        for start in range(0, len(data), SLICE_BYTES):
            self._take_in(data[start : start + SLICE_BYTES])
            if self.transport.is_closing():
                return

    def _take_in(self, data: bytes) -> None:
        """Take in a little; refuse a body in tiny chunks, each of which takes as long as a large one."""
        cycle = self.cycle
        before = len(cycle.body) if cycle else 0
        super().data_received(data)
        if self.cycle is not cycle:
            self._overhead = 0
        elif cycle is not None and cycle.more_body:
            self._overhead = max(0, self._overhead + len(data) - OVERHEAD * (len(cycle.body) - before))
            if self._overhead > OVERHEAD_BYTES:
                self._refuse(400, "the chunks of the request are too small; send larger ones, or Content-Length")

    def handle_events(self) -> None:
        """Handle what was taken in; a new request is one whose head is complete."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_waiting_for_head()
            self.waiting_since = self.loop.time()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.waiting_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """See that an answer that does not go out at once goes out in time.

        Where all that wait take too much memory, the connections whose answers began to wait first are cut.
        """
        super().pause_writing()
        self._wrapped.watch_writing()
        self.blocked_since = self.loop.time()
        others = [other for other in self.connections if isinstance(other, LimitedProtocol) and other is not self]
        fetching = {other: left for other in others if (left := other.unfetched)}
        held = self.unfetched + sum(fetching.values())
        for other in sorted(fetching, key=lambda other: other.blocked_since):
            if held <= self.settings.body_bytes:
                break
            held -= fetching[other]
            other.abort()

    @property
    def unfetched(self) -> int:
        """Bytes of answers that the client has yet to take."""
        return int(self._wrapped.get_write_buffer_size())

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn: there is no request, or not all of it."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def abort(self) -> None:
        """Close without an answer."""
        self.is_counted = False
        self._wrapped.abort()

    def _should_upgrade(self) -> bool:
        return False

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.settings.idle, self._head_is_late)

    def _stop_waiting_for_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.conn.trailing_data[0]:
            self._refuse(408, f"the request's head did not arrive within {self.settings.idle:g} s")
        else:
            self.abort()

    def _refuse(self, status: int, error: str) -> None:
        """Answer in place of the application, and close."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.abort()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the application's answer goes nowhere
            self.cycle.message_event.set()
        body = json.dumps({"error": error}).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            *([("retry-after", "1")] if status == 503 else []),  # noqa: PLR2004
        ]
        response = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self._wrapped.write(self.conn.send(event) or b"")
        self._wrapped.close()


class _LingeringTransport:
    """A transport that closes so that the client gets to read the answer.

    To close a connection while the client still sends resets it, and an answer that the client has not read is lost. So
    only our direction is closed at first; what still comes is thrown away, for a little while.
    """

    def __init__(self, transport: asyncio.Transport, protocol: LimitedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._timer: asyncio.TimerHandle | None = None
        self._discarded = 0
        self.is_lingering = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self.is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Close, at once where the client has said all."""
        if self.is_closing() or not (self._protocol.cycle is None or self._protocol.cycle.more_body):
            self._transport.close()
            self.watch_writing()
            return
        self.is_lingering = True
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.stop_timer()
        self._timer = self._protocol.loop.call_later(LINGER_SECONDS, self._transport.abort)

    def discard(self, data: bytes) -> None:
        """Throw away what comes after the answer."""
        self._discarded += len(data)
        if self._discarded > LINGER_BYTES:
            self._transport.pause_reading()

    def watch_writing(self) -> None:
        """Cut the connection where the client does not take what is written."""
        if self._timer is None and (left := self._transport.get_write_buffer_size()):
            self._timer = self._protocol.loop.call_later(self._protocol.settings.idle, self._check_writing, left)

    def stop_timer(self) -> None:
        """Forget what was to be done later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_writing(self, before: int) -> None:
        self._timer = None
        left = self._transport.get_write_buffer_size()
        settings = self._protocol.settings
        if left and before - left < settings.rate * settings.idle:
            self._transport.abort()
        else:
            self.watch_writing()
