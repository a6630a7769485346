"""Small files that are large, slow or deadly to decode, each made from scratch."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from pictures import encoded, picture
from PIL import Image

from alserve.errors import ImageError
from alserve.images.header import read_header

SIDE = 7000
"""Pixels; 49 million in all are allowed."""

CHUNKS = 50_000


def _chunk(name: bytes, data: bytes, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack(">I", size) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(*chunks: bytes, size: tuple[int, int] = (8, 8), bits: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + b"".join(chunks) + _chunk(b"IEND", b"")


def _zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


PIXELS = _chunk(b"IDAT", zlib.compress(bytes(25 * 8)))
"""Of a PNG of 8 x 8."""


def _scans(number: int) -> bytes:
    """A progressive JPEG with empty scans; each goes over all pixels."""
    data = encoded(Image.new("RGB", (SIDE - 200, SIDE - 200), (90, 90, 90)), "JPEG", progressive=True, quality=50)
    scan = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 63, 0x10)
    return data[: data.rfind(b"\xff\xd9")] + scan * number + b"\xff\xd9"


def _tiff(*tags: tuple[int, int], following: int = 0) -> bytes:
    """One directory of long numbers, at the start."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


def _tiff_file(*tags: tuple[int, int]) -> bytes:
    return b"II*\0" + struct.pack("<I", 8) + _tiff(*tags) + bytes(64)


GREY = ((258, 8), (262, 1), (277, 1))
"""TIFF tags: one channel of 8 bits."""


def _pages(number: int) -> bytes:
    tags = ((256, 1), (257, 1), (259, 1), (273, 8), (278, 1), (279, 1), *GREY)
    size = len(_tiff(*tags))
    pages = (_tiff(*tags, following=8 + page * size if page < number else 0) for page in range(1, number + 1))
    return b"II*\0" + struct.pack("<I", 8) + b"".join(pages)


def _sharing_tiles(side: int, data: bytes) -> bytes:
    """A deflated TIFF of 16 x 16 tiles, all of which are the same bytes."""
    number = (side // 16) ** 2
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16, 323: 16}
    places = {324: 200, 325: 200 + 4 * number}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    entries += [struct.pack("<HHII", tag, 4, number, place) for tag, place in places.items()]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    numbers = (200 + 8 * number, len(data))
    return head.ljust(200, b"\0") + b"".join(struct.pack("<I", value) * number for value in numbers) + data


def _gif(screen: int, frame: int, number: int = 1) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", screen, screen, 0x80, 0, 0) + bytes(6)
    return head + (b"," + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\x02\x02\x44\x01\x00") * number + b";"


def _webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _canvas(side: int) -> bytes:
    return b"VP8X" + struct.pack("<II", 10, 2) + 2 * (side - 1).to_bytes(3, "little")


def _bmp(bits: int, kind: int, body: bytes) -> bytes:
    start = 54 + (1024 if bits == 8 else 0)
    head = struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, start, 40, SIDE, SIDE, 1, bits, kind, 0, 0, 0, 0, 0)
    return b"BM" + head + bytes(start - 54) + body


BOMBS: dict[str, Callable[[], bytes]] = {
    "PNG chunk of 4 GB": lambda: _png(_chunk(b"IDAT", bytes(10), 0xFFFFFFF0)),
    "PNG text of 2 GB": lambda: _png(_chunk(b"tEXt", bytes(10), 0x7FFFFFFF)),
    "PNG pixels that are not there": lambda: _png(_chunk(b"IDAT", zlib.compress(b"\0")), size=(SIDE, SIDE)),
    "PNG pixels of 500 MB": lambda: _png(_chunk(b"IDAT", _zeros(500))),
    "PNG text of 500 MB": lambda: _png(_chunk(b"zTXt", b"a\0\0" + _zeros(500)), PIXELS),
    "PNG profile of 500 MB": lambda: _png(_chunk(b"iCCP", b"a\0\0" + _zeros(500)), PIXELS),
    "PNG of many chunks": lambda: _png(_chunk(b"tEXt", b"a\0b") * CHUNKS, PIXELS),
    "PNG of many empty pixels": lambda: _png(_chunk(b"IDAT", b"") * CHUNKS, PIXELS),
    "PNG of 2 billion frames": lambda: _png(_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), PIXELS),
    "PNG frame of 4 billion pixels": lambda: _png(
        _chunk(b"acTL", struct.pack(">II", 2, 0)),
        _chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2**16, 2**16, 0, 0, 1, 1, 0, 0)),
        PIXELS,
    ),
    "PNG of 16 bits, interlaced": lambda: _png(
        _chunk(b"IDAT", _zeros(375)), size=(SIDE, SIDE), bits=16, colour=6, interlaced=1
    ),
    "JPEG of 16,000 scans": lambda: _scans(16_000),
    "JPEG of nothing but fill bytes": lambda: b"\xff\xd8" + b"\xff" * 100_000 + b"\0",
    "JPEG of just as many scans as are allowed": lambda: _scans(50),
    "JPEG of a million fill bytes": lambda: encoded(picture(), "JPEG")[:-2] + b"\xff" * 1_000_000 + b"\0\xff\xd9",
    "TIFF of 60,000 pages": lambda: _pages(60_000),
    "TIFF page that leads to itself": lambda: b"II*\0" + struct.pack("<I", 8) + _tiff((256, 8), (257, 8), following=8),
    "TIFF tile of 2**48 pixels": lambda: _tiff_file(
        (256, 1), (257, 1), (259, 1), (322, 2**24), (323, 2**24), (324, 8), (325, 64), *GREY
    ),
    "TIFF tile of 1 GB": lambda: _tiff_file(
        (256, 1), (257, 1), (259, 5), (322, 2**15), (323, 2**15), (324, 8), (325, 64), *GREY
    ),
    "TIFF of tiles that share a megabyte": lambda: _sharing_tiles(
        1600, zlib.compress(b"")[:2] + b"\0\0\0\xff\xff" * 200_000
    ),
    "TIFF strip of 2 billion rows": lambda: _tiff_file(
        (256, SIDE), (257, SIDE), (259, 8), (273, 8), (278, 2**31 - 1), (279, 64), *GREY
    ),
    "TIFF of 2**32 entries": lambda: b"II*\0" + struct.pack("<IH", 8, 65_535),
    "BigTIFF of 2**64 entries": lambda: b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2**64 - 1),
    "GIF of 4 billion pixels": lambda: _gif(65_535, 65_535),
    "GIF of 49 million pixels": lambda: _gif(SIDE, SIDE),
    "GIF of 3,000 frames": lambda: _gif(SIDE, SIDE, 3000),
    "GIF frame larger than its screen": lambda: _gif(8, 60_000),
    "GIF of one-byte blocks": lambda: _gif(8, 8)[:-4] + b"\x01\x44" * CHUNKS + b"\0;",
    "WebP canvas of 268 million pixels": lambda: _webp(_canvas(16_383)),
    "WebP canvas without a frame": lambda: _webp(_canvas(SIDE), b"ANIM" + struct.pack("<I", 6) + bytes(6)),
    "WebP chunk of 4 GB": lambda: _webp(_canvas(8), b"VP8L\xf0\xff\xff\xff"),
    "WebP pixels that are not there": lambda: _webp(
        b"VP8L" + struct.pack("<I", 40) + b"\x2f" + struct.pack("<I", (SIDE - 1) * (1 + (1 << 14))) + bytes(35)
    ),
    "BMP of nothing but its end": lambda: _bmp(8, 1, b"\0\1"),
    "BMP pixels that are not there": lambda: _bmp(24, 0, bytes(10)),
    "PPM pixels that are not there": lambda: b"P6 7000 7000 255 ",
    "PPM text that is not there": lambda: b"P3 7000 7000 255 1 2 3",
    "PPM of a million comments": lambda: b"P6" + b"#\n" * 1_000_000 + b"8 8 255\n" + bytes(192),
    "PPM of a number of a million digits": lambda: b"P6 " + b"9" * 1_000_000 + b" 1 255\n",
}
"""Each bomb by its name; see `alserve.images.header` for what stops it."""


def claimed_pixels(data: bytes) -> int:
    """The pixels that an image says it has; none where it is refused before it is decoded."""
    try:
        header = read_header(data)
    except ImageError:
        return 0
    return header.height * header.width


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Change some bytes of a file, to extremes more often than to anything, cut it, or repeat a part of it."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        at = int(random.integers(len(changed) + 1))
        length = int(random.choice([1, 2, 4, 8]))
        match int(random.integers(6)):
            case 0 | 1:
                changed[at : at + length] = random.bytes(length)
            case 2:
                changed[at : at + length] = bytes([random.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF])]) * length
            case 3:
                del changed[at : at + int(random.integers(1, 64))]
            case 4:
                changed[at:at] = changed[at : at + int(random.integers(1, 64))] * int(random.integers(1, 20))
            case _:
                del changed[max(1, at) :]
    return bytes(changed)
