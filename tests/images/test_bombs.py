"""Hostile images are refused or decoded, in bounded time and memory."""

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bombs import BOMBS, claimed_pixels
from decoding import SECONDS, attempt, processes
from pictures import encoded, picture

from alserve.errors import ImageError
from alserve.images.decoders import Decoders
from alserve.images.header import read_header

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")

NEEDED = 12
"""Bytes that a pixel takes while it is decoded: a progressive JPEG."""


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(1, SECONDS) as decoders:
        yield decoders


def peak(process: psutil.Process) -> int:
    """Bytes of memory that a process had at most."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(decoders: Decoders, name: str) -> None:
    data = BOMBS[name]()
    pixels = claimed_pixels(data)
    decoders.decode(encoded(picture()))
    (process,) = processes()
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # forget the peak so far
    before = peak(process)
    found = attempt(decoders, data)
    if isinstance(found, ImageError):
        assert "\n" not in str(found)
    else:
        assert found.pixels.size == 3 * pixels
    if process.is_running():
        assert peak(process) < before + 3e8 + NEEDED * pixels


def test_tiles_that_share_their_bytes_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(ImageError, match="damaged"):
        read_header(BOMBS["TIFF of tiles that share a megabyte"]())
