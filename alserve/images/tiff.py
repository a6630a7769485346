"""The first directory of a TIFF file, or of EXIF data, which are one: its tags, and what stands in them."""

import struct
from mmap import mmap
from typing import NamedTuple

import numpy as np

Data = bytes | mmap
"""The bytes of a file, whole or mapped."""

MOST_TAGS = 1 << 16
"""Further tags of a directory are not looked at; cameras write a hundred."""

_TEXT, _RATIO = "text", "ratio"
_FORMS = {2: _TEXT, 3: "H", 4: "I", 5: _RATIO, 16: "Q"}
"""How the values of a kind are stored; the others are not read."""


class CutShortError(ValueError):
    """The directory, or what stands in a tag, reaches beyond the end of the file."""


class _Entry(NamedTuple):
    form: str
    """Of `_FORMS`."""
    values: int
    """Their number."""
    at: int
    """Where they stand if there is room for them, else where it is said where they stand."""


class Directory(NamedTuple):
    """Tags with what stands in them; of tags that come twice, the first counts."""

    data: Data
    order: str
    """Order of the bytes, as `struct` has it."""
    offset: str
    """How a place in the file is stored, as `struct` has it."""
    numbers: dict[int, _Entry]
    """Tags of whole numbers."""
    others: dict[int, _Entry]
    following: int
    """Where the next directory begins, or 0."""

    def number(self, tag: int, default: int | None = None) -> int:
        """Return the number of a tag that has one.

        Raises:
            KeyError: There is no such tag, and no default.
        """
        if default is not None and tag not in self.numbers:
            return default
        form, _, at = self.numbers[tag]
        return int(self._unpack(form, at))

    def total(self, tag: int) -> int:
        """Return the sum of the numbers of a tag, 0 where there is no such tag.

        Raises:
            CutShortError: They reach beyond the file.
        """
        if tag not in self.numbers:
            return 0
        form, count, _ = entry = self.numbers[tag]
        width = struct.calcsize(form)
        at = self._place(entry, count * width)
        return int(np.frombuffer(self.data, f"{self.order}u{width}", count, at).sum(dtype=np.float64))

    def text(self, tag: int, most: int) -> bytes:
        """Return the text of a tag, up to its first zero byte, or as much of it as `most` bytes hold; KeyError."""
        form, count, _ = entry = self.others[tag]
        if form != _TEXT:
            raise KeyError(tag)
        at = self._place(entry, count)
        return bytes(self.data[at : at + min(count, most)]).partition(b"\0")[0]

    def ratio(self, tag: int) -> float:
        """Return the number of a tag that has one as a fraction; KeyError, ZeroDivisionError."""
        form, count, _ = entry = self.others[tag]
        if form != _RATIO or count != 1:
            raise KeyError(tag)
        at = self._place(entry, 8)
        return self._unpack("I", at) / self._unpack("I", at + 4)

    def _place(self, entry: _Entry, length: int) -> int:
        at = entry.at if length <= struct.calcsize(self.offset) else self._unpack(self.offset, entry.at)
        if at + length > len(self.data):
            raise CutShortError("values reach beyond the end")
        return at

    def _unpack(self, form: str, at: int) -> int:
        (value,) = struct.unpack_from(f"{self.order}{form}", self.data, at)
        return int(value)


def read_directory(data: Data) -> Directory:
    """Read the first directory of a TIFF file.

    Raises:
        CutShortError: It reaches beyond the file.
        ValueError: It is no TIFF.
        KeyError: The same.
        struct.error: The file ends before it.
    """
    order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    match version:
        case 42:  # 32-bit offsets
            place, offset, entry, short = 4, "I", 12, "H"
        case 43:  # 64-bit offsets: BigTIFF
            place, offset, entry, short = 8, "Q", 20, "Q"
        case _:
            raise ValueError("no TIFF")
    (at,) = struct.unpack_from(order + offset, data, place)
    (count,) = struct.unpack_from(order + short, data, at)
    at += struct.calcsize(f"{order}{short}")
    if at + count * entry > len(data):
        raise CutShortError("tags reach beyond the end")
    numbers: dict[int, _Entry] = {}
    others: dict[int, _Entry] = {}
    for start in range(at, at + min(count, MOST_TAGS) * entry, entry):
        tag, kind, values = struct.unpack_from(f"{order}HH{offset}", data, start)
        if form := _FORMS.get(kind):
            found = others if form in {_TEXT, _RATIO} else numbers
            found.setdefault(tag, _Entry(form, values, start + entry - struct.calcsize(offset)))
    following = data[at + count * entry :][: struct.calcsize(offset)]
    return Directory(
        data, order, offset, numbers, others, int.from_bytes(following, "little" if order == "<" else "big")
    )
