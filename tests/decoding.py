"""Decoder processes: what becomes of an image, and how to end one at work."""

from collections.abc import Callable, Sequence

import psutil

from alserve.errors import ImageError, ImageTimeoutError
from alserve.images.decoders import Decoded, Decoders

SECONDS = 20
"""Time for any bomb here, on a slow and busy machine too."""


def processes() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children() if "alserve.images.decode_process" in " ".join(child.cmdline())
    ]


def attempt(decoders: Decoders, data: bytes) -> Decoded | ImageError:
    """What becomes of an image; one that takes too long is a failure."""
    try:
        return decoders.decode(data)
    except ImageTimeoutError:
        raise
    except ImageError as error:
        return error


def kill_at_work(processes: Sequence[psutil.Process], done: Callable[[], bool]) -> None:
    """Kill the process that decodes something large, while it does."""
    while not done():
        for process in processes:
            if process.memory_info().rss > 300e6:
                process.kill()
                return
