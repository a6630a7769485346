"""Kind, size and structure of an image file, read from its bytes before any decoder sees them.

A decoder believes what a file says of itself: a chunk of 4 GB, 65,535 x 65,535 pixels, ten thousand scans. So the size
is held against what is allowed first, then every length against the file's own, and what is counted has a limit. What
is no image of a known kind, or contradicts itself, is refused here; what only a decoder can see is bounded by
`alserve.images.decoders`.
"""

import math
import re
import struct
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from alserve.errors import ImageError, ImageKindError, ImageSizeError
from alserve.images.tiff import CutShortError, Data, Directory, read_directory

MAX_PIXELS = 8192 * 8192
"""An image of more pixels is refused before it is decoded, unless the caller allows more."""

HEAD = 512
"""Bytes, from the beginning of a file, that tell its kind."""

MAX_PARTS = 1_000_000
"""A file of more chunks, segments or blocks is refused; an image of 1 billion pixels has some 100,000."""

MAX_SCANS = 64
"""A JPEG of more scans is refused; each is a pass over all pixels, and encoders write ten or so."""

DAMAGED = "the image is damaged, ends too early, or has samples of 32 bits"

_FIRST_TURNED = 5
"""EXIF orientations from 5 on swap rows and columns."""


class Header(NamedTuple):
    """What an image file says of itself."""

    kind: str
    """One of `FORMATS`."""
    height: int
    """Rows as stored, before an EXIF rotation, in pixels."""
    width: int
    """Columns as stored, in pixels."""
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    several: bool = False
    """Whether there are more pages or frames; the first one is read."""

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) in pixels after the EXIF rotation, which is how the image is decoded."""
        turned = self.orientation >= _FIRST_TURNED
        return (self.width, self.height) if turned else (self.height, self.width)

    @property
    def warning(self) -> str | None:
        """What a user should know of how the image is read; None if there is nothing to say."""
        return "the first of several frames is used" if self.several else None


def read_header(data: Data, max_pixels: int = MAX_PIXELS) -> Header:
    """Read what an image file says of itself, and check its structure without decoding it.

    Args:
        data: The bytes of an image file.
        max_pixels: Pixels that are allowed.

    Raises:
        ImageKindError: It is no image, or of another kind than `FORMATS`.
        ImageSizeError: It is larger than allowed.
        ImageError: There are no bytes at all, or a part of the file reaches beyond its end, or there are too many.
    """
    if not len(data):
        raise ImageError("the file is empty")
    if kind := kind_of(data[:HEAD]):
        try:
            return _READERS[kind][1](_File(data, kind, max_pixels))
        except (struct.error, IndexError, ValueError, KeyError):
            pass
    raise ImageKindError(f"not an image of a known kind ({', '.join(FORMATS)}), or damaged")


class _File(NamedTuple):
    """A file on its way through one of the readers below."""

    data: Data
    kind: str
    max_pixels: int

    def unpack(self, form: str, at: int) -> tuple[int, ...]:
        """Unpack numbers; `struct.error` where the file ends before them."""
        return struct.unpack_from(form, self.data, at)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size once it is known to be one, and allowed."""
        if height < 1 or width < 1:
            raise ValueError("no pixels")
        if height * width > self.max_pixels:
            raise ImageSizeError(f"the image has {width} x {height} pixels, more than the {self.max_pixels:,} allowed")
        return height, width

    def check_end(self, end: int) -> None:
        """Refuse a part that reaches beyond the file."""
        if end > len(self.data):
            raise ImageError(DAMAGED)

    def orientation(self, exif: bytes) -> int:
        """Return the EXIF orientation; 1 where there is none that makes sense."""
        try:
            return _orientation(read_directory(exif.removeprefix(b"Exif\0\0")))
        except (struct.error, LookupError, ValueError):
            return 1


def _parts() -> Iterator[None]:
    """Count the parts of a file; refuse too many."""
    for _ in range(MAX_PARTS):
        yield
    raise ImageError(f"the file has more than {MAX_PARTS:,} parts; save the image anew")


_INCOMPRESSIBLE = 1 << 16
"""Bytes that a PNG's compressed pixels may take beside those that its size explains."""


def _read_png(file: _File) -> Header:
    length, name, width, height, bits = struct.unpack_from(">I4sIIB", file.data, 8)
    if (length, name) != (13, b"IHDR"):
        raise ValueError("no header")
    size = file.size(height, width)
    at, orientation, frames, compressed = 8, 1, 1, 0
    for _ in _parts():
        file.check_end(at + 12)
        (length,) = file.unpack(">I", at)
        file.check_end(at + 12 + length)
        match file.data[at + 4 : at + 8]:
            case b"IEND":
                break
            case b"IDAT":
                compressed += length
            case b"acTL":
                (frames,) = file.unpack(">I", at + 8)
            case b"eXIf":
                orientation = file.orientation(file.data[at + 8 : at + 8 + length])
        at += 12 + length
    if compressed > _INCOMPRESSIBLE + height * (width * bits + 1):  # twice as much as the most that it can stand for
        raise ImageError(DAMAGED)
    return Header(file.kind, *size, orientation, frames > 1)


_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""A JPEG marker, after any number of further bytes FF; stuffed bytes and restarts inside a scan are none."""

_START, _END, _SCAN, _EXIF, _LONE = 0xD8, 0xD9, 0xDA, 0xE1, 0x01
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _read_jpeg(file: _File) -> Header:
    at, orientation, scans = 2, 1, 0
    size: tuple[int, int] | None = None
    for _ in _parts():
        marker = _MARKER.search(file.data, at)
        if marker is None or marker[1][0] == _END:
            break
        code, at = marker[1][0], marker.end()
        if code in {_START, _LONE}:
            continue
        (length,) = file.unpack(">H", at)
        file.check_end(at + length)
        if code in _FRAMES:
            if size:
                raise ImageError(DAMAGED)
            size = file.size(*file.unpack(">HH", at + 3))
        elif code == _SCAN:
            scans += 1
            if scans > MAX_SCANS:
                raise ImageError(f"the JPEG has more than {MAX_SCANS} scans; save the image anew")
        elif code == _EXIF and file.data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = file.orientation(file.data[at + 2 : at + length])
        at += max(2, length)
    if size is None:
        raise ValueError("no frame")
    return Header(file.kind, *size, orientation)


_TRAILER, _EXTENSION, _IMAGE = b"\x3b", b"\x21", b"\x2c"


def _read_gif(file: _File) -> Header:
    width, height, flags = file.unpack("<HHB", 6)
    size = file.size(height, width)
    at, frames = 13 + _colours(flags), 0
    for _ in _parts():
        block = file.data[at : at + 1]
        if block == _IMAGE:
            frames += 1
            left, top, columns, rows, flags = file.unpack("<HHHHB", at + 1)
            if frames > 1:
                break
            if left + columns > width or top + rows > height:
                raise ImageError(DAMAGED)
            at += 11 + _colours(flags)
        elif block == _EXTENSION:
            at += 2
        elif block == _TRAILER and frames:
            break
        elif block or not frames:
            raise ValueError("no block")
        else:
            raise ImageError(DAMAGED)
        for _ in _parts():
            file.check_end(at + 1)
            length = file.data[at]
            at += 1 + length
            if not length:
                break
    return Header(file.kind, *size, several=frames > 1)


def _colours(flags: int) -> int:
    """Return the bytes of a GIF's colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _read_webp(file: _File) -> Header:
    size: tuple[int, int] | None = None
    at, orientation, frames = 12, 1, 0
    for _ in _parts():
        if at + 8 > len(file.data):
            break
        (length,) = file.unpack("<I", at + 4)
        file.check_end(at + 8 + length)
        body = at + 8
        match file.data[at : at + 4]:
            case b"VP8X":
                (both,) = file.unpack("<Q", body + 2)  # 24 bits each, behind 16 others
                size = file.size((both >> 40) + 1, (both >> 16 & 0xFFFFFF) + 1)
            case b"VP8 ":
                width, height = file.unpack("<HH", body + 6)
                size = size or file.size(height & 0x3FFF, width & 0x3FFF)
            case b"VP8L":
                (bits,) = file.unpack("<I", body + 1)
                size = size or file.size((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
            case b"ANMF":
                frames += 1
            case b"EXIF":
                orientation = file.orientation(file.data[body : body + length])
        at = body + length + length % 2
    if size is None:
        raise ValueError("no frame")
    return Header(file.kind, *size, orientation, frames > 1)


_CORE = 12
"""Bytes of the oldest BMP header."""


def _read_bmp(file: _File) -> Header:
    start, length = file.unpack("<II", 10)
    width, height, _, bits = file.unpack("<HHHH" if length == _CORE else "<iiHH", 18)
    size = file.size(abs(height), width)
    compressed = length > _CORE and file.unpack("<I", 30)[0] in {1, 2}
    if not compressed:
        file.check_end(start + (width * bits + 31) // 32 * 4 * size[0])
    return Header(file.kind, *size)


_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274
_STRIP_BYTES, _TILE_BYTES = 279, 325

_BYTES_PER_PIXEL = 3
"""What the strips and tiles of a TIFF may take together, beside the file's own length: they may share bytes."""


def _read_tiff(file: _File) -> Header:
    try:
        tags = read_directory(file.data)
        size = file.size(tags.number(_HEIGHT), tags.number(_WIDTH))
        longest = max(tags.total(_STRIP_BYTES), tags.total(_TILE_BYTES))
    except CutShortError:
        raise ImageError(DAMAGED) from None
    if longest > len(file.data) + _BYTES_PER_PIXEL * math.prod(size):
        raise ImageError(DAMAGED)
    return Header(file.kind, *size, _orientation(tags), tags.following > 0)


def _orientation(tags: Directory) -> int:
    """Return the EXIF orientation; 1 where there is none that makes sense."""
    found = tags.number(_ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1  # noqa: PLR2004


_NUMBERS = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,10})(?:\s|#[^\n]*\n)+(\d{1,10})\s")


_HIGHEST = re.compile(rb"(?:\s|#[^\n]*\n)*(\d{1,5})\s")
_USUAL = {255, 4095, 65535}
"""Highest samples of PPM and PGM that become what a viewer shows: all of 8, 12 or 16 bits."""


def _read_ppm(file: _File) -> Header:
    found = _NUMBERS.match(file.data)
    if found is None:
        raise ValueError("no numbers")
    height, width = file.size(int(found[2]), int(found[1]))
    if file.data[1:2] not in b"14":
        highest = _HIGHEST.match(file.data, found.end())
        if highest is None:
            raise ValueError("no highest sample")
        if int(highest[1]) not in _USUAL:
            raise ImageError(f"the samples go up to {int(highest[1])}, not to 255, 4095 or 65535; save the image anew")
    channels, bits = {b"4": (1, 1), b"5": (1, 8), b"6": (3, 8)}.get(bytes(file.data[1:2]), (1, 8))
    file.check_end(found.end() + height * -(-width * channels * bits // 8))
    return Header(file.kind, height, width)


_READERS: dict[str, tuple[re.Pattern[bytes], Callable[[_File], Header]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), _read_jpeg),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), _read_png),
    "TIFF": (re.compile(rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"), _read_tiff),
    "BMP": (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), _read_bmp),
    "WEBP": (re.compile(rb"RIFF....WEBP", re.DOTALL), _read_webp),
    "GIF": (re.compile(rb"GIF8[79]a"), _read_gif),
    "PPM": (_NUMBERS, _read_ppm),
}

FORMATS = tuple(_READERS)
"""Kinds of file that are read, told from their content."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Usual ends of their names, in lower case."""


def kind_of(head: bytes) -> str | None:
    """Return the kind of image that a file begins like, of `FORMATS`; None if it is none.

    Args:
        head: Its first `HEAD` bytes.
    """
    return next((kind for kind, (magic, _) in _READERS.items() if magic.match(head)), None)


ANY_SIZE = sys.maxsize
"""In place of a number of pixels: no limit."""
