"""Decode images that may be hostile: in processes of their own, bounded in memory and in time.

A decoder that hangs is killed, one that crashes costs the image that it had, and neither touches anybody else. The
memory is bounded on Linux alone, which has a limit for it; time is bounded everywhere.
"""

import json
import math
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedIOBase, BufferedReader, BufferedWriter
from threading import Event, Lock, Semaphore, Thread
from types import TracebackType
from typing import NamedTuple, Self, cast

import numpy as np

from alserve.arrays import Image
from alserve.errors import (
    ImageError,
    ImageKindError,
    ImageLimitError,
    ImageSizeError,
    ImageTimeoutError,
    ServiceError,
)
from alserve.geometry import MAX_ASPECT
from alserve.images.codec import NO_MEMORY
from alserve.images.decode_process import HEAD, HELLO, LENGTH, TAKEN
from alserve.images.header import MAX_PIXELS
from alserve.modelfile import MAX_SHORT_SIDE

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from alserve.images.decode_process import run; run()"

_PIPE_BYTES = 1 << 20
"""Size of the pipes to and from a process: larger than the system's default, so that an image takes fewer turns."""

_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)}
"""For the C library (glibc): keep this number of bytes for the next image, sooner than asking for them anew."""

_START_SECONDS = 60
"""Time in which a process must have started."""

_TICK_SECONDS = 0.1
"""How exactly time limits are kept."""

_GRACE = 2
"""Seconds after its time limit at which a process ends itself, where nobody is left to kill it."""

_MOST_WORKING_PIXELS = MAX_ASPECT * MAX_SHORT_SIDE**2
"""A small image is enlarged to its working size."""

_MOST_JSON = 1 << 16
"""Bytes; an answer without its pixels is much shorter."""

_ERRORS = {kind.__name__: kind for kind in (ImageError, ImageKindError, ImageSizeError, ImageLimitError)}


class Decoded(NamedTuple):
    """A decoded image."""

    pixels: Image
    """uint8 [height, width, 3], RGB, upright; at the working size where that was asked for."""
    warning: str | None
    """What a user should know of how the image was read."""
    height: int
    """Rows of the image itself."""
    width: int
    """Columns of the image itself."""
    um_per_pixel: float | None
    """Side of a pixel of the image itself in micrometres, see `alserve.images.resolution`."""


class Decoders:
    """Processes that decode images; `decode` may be called from many threads at once.

    Args:
        at_once: Number of images decoded at once, and of processes that are started.
        seconds: Time to decode one image.
        spare: Further processes, so that nobody waits for the start of one that replaces another.
    """

    def __init__(self, at_once: int, seconds: float, *, spare: int = 0) -> None:
        self.seconds = seconds
        self._places = Semaphore(at_once)
        self._all: set[_Decoder] = set()
        self._idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        for _ in range(at_once + spare):
            self._idle.put(self._start())
        self._closed = Event()
        Thread(target=self._watch, name="decoders", daemon=True).start()

    def decode(
        self, data: bytes, max_pixels: int = MAX_PIXELS, *, short_side: int = 0, seconds: float | None = None
    ) -> Decoded:
        """Decode an image, see `alserve.images.codec.decode_picture`.

        Args:
            data: The bytes of an image file.
            max_pixels: Pixels that are allowed.
            short_side: Return the image at this working size, in pixels (see `alserve.geometry.working_shape`), which
                is sooner here than the image itself. Default: the image itself.
            seconds: Time that is left, waiting for a process included. Default: no limit but that of the decoding.

        Raises:
            ImageError: The bytes are no usable image.
            ImageLimitError: The image takes more memory than an image of its size may, or crashes the decoder.
            ImageTimeoutError: There is no more time.
            ServiceError: The processes do not start.
        """
        arrived = time.monotonic()
        if not self._places.acquire(timeout=seconds):
            raise ImageTimeoutError(f"the image waited {seconds:g} s for others to be decoded; try again")
        try:
            left = self.seconds if seconds is None else min(self.seconds, arrived + seconds - time.monotonic())
            decoder = self._idle.get()
            try:
                return decoder.decode(data, max_pixels, short_side, left)
            except _IdleEndError:
                decoder = self._replace(decoder)
                return decoder.decode(data, max_pixels, short_side, left)
            finally:
                self._idle.put(decoder if decoder.lives else self._replace(decoder))
        finally:
            self._places.release()

    def _start(self) -> "_Decoder":
        decoder = _Decoder()
        self._all.add(decoder)
        return decoder

    def _replace(self, decoder: "_Decoder") -> "_Decoder":
        decoder.close()
        self._all.discard(decoder)
        return self._start()

    def _watch(self) -> None:
        """Kill the processes whose time is over; one thread for all costs less than a timer for each image."""
        while not self._closed.wait(_TICK_SECONDS):
            for decoder in tuple(self._all):
                decoder.check_time()

    def close(self) -> None:
        """End all processes that decode nothing."""
        self._closed.set()
        while not self._idle.empty():
            self._idle.get().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _IdleEndError(ServiceError):
    """The process ended while it had nothing to do."""


class _Decoder:
    """One process; it starts by itself and is waited for at its first use."""

    def __init__(self) -> None:
        with _stop_signals_blocked():  # a stop of this program may come before the process can ignore it
            self._process = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-P", "-c", _PROGRAM, *filter(None, sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_KEEP_MEMORY},
            )
        _enlarge(self._input, self._output)
        self._started = self._late = False
        self._deadline = math.inf
        self._lock = Lock()  # between the end of an image and that of its time

    @property
    def lives(self) -> bool:
        """Whether it can decode another image; one that was killed just now may not have ended yet."""
        return not self._late and self._process.poll() is None

    def decode(self, data: bytes, max_pixels: int, short_side: int, seconds: float) -> Decoded:
        """Decode an image, see `Decoders.decode`."""
        self._wait()
        seconds = max(0.0, seconds)
        try:
            with self._killed_after(seconds):
                self._send(HEAD.pack(len(data), max_pixels, short_side, math.ceil(seconds) + _GRACE), data)
                return self._receive(max_pixels)
        except (EOFError, ValueError, KeyError, TypeError, _IdleEndError) as error:
            self.close()  # it is gone, or what it says makes no sense
            if self._late:
                raise ImageTimeoutError(f"the image was not decoded within {seconds:.3g} s") from None
            if isinstance(error, _IdleEndError):
                raise
            raise ImageLimitError(NO_MEMORY) from None

    def _wait(self) -> None:
        """Wait until it has started."""
        if self._started:
            return
        with self._killed_after(_START_SECONDS):
            self._started = self._output.read(len(HELLO)) == HELLO
        if not self._started:
            self.close()
            raise ServiceError("the process that decodes images does not start; is there memory for one more?")

    @contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        """Let the process be killed if the block takes longer; what is read from it then ends."""
        self._deadline = time.monotonic() + seconds
        try:
            yield
        finally:
            with self._lock:
                self._deadline = math.inf

    def check_time(self) -> None:
        """Kill the process if its time is over."""
        with self._lock:
            if time.monotonic() > self._deadline:
                self._late = True
                self._process.kill()

    def _send(self, *parts: bytes) -> None:
        """Send a request, and wait until it is taken."""
        try:
            for part in parts:
                self._input.write(part)
            self._input.flush()
            taken = self._output.read(len(TAKEN)) == TAKEN
        except OSError:
            taken = False
        if not taken:
            raise _IdleEndError("the process that decodes images has ended")

    def _receive(self, max_pixels: int) -> Decoded:
        answer = json.loads(self._read(min(_MOST_JSON, *LENGTH.unpack(self._read(LENGTH.size)))))
        if "error" in answer:
            raise _ERRORS[answer["error"]](answer["text"])
        (height, width), (rows, columns) = answer["size"], answer["shape"]
        if height * width > max_pixels or rows * columns > max(max_pixels, _MOST_WORKING_PIXELS):
            raise ValueError("more pixels than are allowed")
        pixels = np.empty((rows, columns, 3), np.uint8)
        if self._output.readinto(pixels.data) < pixels.nbytes:
            raise EOFError
        side = answer["um_per_pixel"]
        return Decoded(pixels, answer["warning"], height, width, None if side is None else float(side))

    def _read(self, count: int) -> bytes:
        data = self._output.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self._output):
            with suppress(OSError):  # what was not sent has nowhere to go
                pipe.close()

    @property
    def _input(self) -> BufferedWriter:
        return cast("BufferedWriter", self._process.stdin)

    @property
    def _output(self) -> BufferedReader:
        return cast("BufferedReader", self._process.stdout)


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Block SIGINT and SIGTERM in this thread, and for good in the processes that it starts meanwhile."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _enlarge(*pipes: BufferedIOBase) -> None:
    """Give pipes `_PIPE_BYTES`, where the system can; past a total for each user Linux refuses to."""
    if sys.platform == "linux":
        from fcntl import F_SETPIPE_SZ, fcntl  # noqa: PLC0415  not on Windows

        with suppress(OSError):
            for pipe in pipes:
                fcntl(pipe.fileno(), F_SETPIPE_SZ, _PIPE_BYTES)
