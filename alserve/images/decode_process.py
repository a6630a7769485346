"""The process that decodes images for `alserve.images.decoders`: requests come through its standard input, one by one.

A request is a `HEAD` and the bytes of an image file. An answer is `TAKEN`, at once; then the length of a JSON object in
4 bytes, the object, and, where it holds a "shape", the pixels. What is read back is parsed, never unpickled: a decoder
that a file has taken over can send pixels, and nothing else.
"""

import json
import os
import signal
import struct
import sys
from pathlib import Path
from typing import Any

from alserve.arrays import Image
from alserve.errors import ImageError
from alserve.geometry import resize, working_shape
from alserve.images.codec import decode_picture
from alserve.images.header import read_header
from alserve.images.resolution import stated_um_per_pixel

HEAD = struct.Struct("<QQII")
"""Bytes of the file, pixels that are allowed, short side that is wanted (0: as it is), seconds after which it ends."""

LENGTH = struct.Struct("<I")

HELLO = b"ready\n"
"""What it says once, when it has started."""

TAKEN = b"+"
"""What it says when it has all of a request: if it ends from here on, the image is to blame."""

BYTES_PER_PIXEL = 20
"""Memory that decoding may take for each pixel: a progressive JPEG takes 12, a PNG with 16 bits and alpha 19."""

SPARE_BYTES = 128 << 20
"""Memory that decoding may take beside that."""


def run() -> None:
    """Answer requests until there are no more."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the process that asks, which ends this one
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    requests = sys.stdin.buffer
    answers.write(HELLO)
    answers.flush()
    while head := requests.read(HEAD.size):
        length, max_pixels, short_side, seconds = HEAD.unpack(head)
        _end_after(seconds)
        data = requests.read(length)
        answers.write(TAKEN)
        answers.flush()
        answer, pixels = _decode(data, max_pixels, short_side)
        text = json.dumps(answer).encode()
        answers.write(LENGTH.pack(len(text)) + text)
        if pixels is not None:
            answers.write(pixels.data)
        answers.flush()
        _end_after(0)


def _decode(data: bytes, max_pixels: int, short_side: int) -> tuple[dict[str, Any], Image | None]:
    try:
        header = read_header(data, max_pixels)
        _limit_memory(SPARE_BYTES + BYTES_PER_PIXEL * header.height * header.width)
        pixels, warning = decode_picture(data, header)
        height, width = pixels.shape[:2]
        if short_side:
            pixels = resize(pixels, working_shape(height, width, short_side))
    except ImageError as error:
        return {"error": type(error).__name__, "text": str(error)}, None
    finally:
        _limit_memory(None)
    found = {"size": (height, width), "warning": warning, "um_per_pixel": stated_um_per_pixel(data, header)}
    return {**found, "shape": pixels.shape[:2]}, pixels


def _limit_memory(more: int | None) -> None:
    """Limit the memory that this process takes from now on, in bytes (None: no limit); Linux only."""
    if sys.platform == "linux":
        import resource  # noqa: PLC0415  not on Windows

        try:
            pages = int(Path("/proc/self/statm").read_bytes().split()[0])
        except OSError:
            return
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = hard if more is None else pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _end_after(seconds: int) -> None:
    """End this process after a number of seconds, even if its parent has ended; 0: never."""
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(seconds)
