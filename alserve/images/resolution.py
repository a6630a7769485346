"""The size of a pixel, where an image file states it for measuring.

Two kinds of TIFF do, OME-TIFF and ImageJ's. What other files hold is the size of a print, and mostly a default of the
program that wrote them: 72, 96 or 100 dots an inch, pixels of a quarter of a millimetre.
"""

import math
import struct
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat  # fetches nothing by itself; entities, which could swell, are refused here

from alserve.images.header import Header
from alserve.images.tiff import Data, Directory, read_directory

MOST_BYTES = 1 << 20
"""Bytes of a description that are looked at; that of an OME-TIFF states the size of a pixel near its beginning."""

LEAST_UM, MOST_UM = 1e-6, 1e6
"""Sides of a pixel in micrometres that are believed: a picometre to a metre."""

SQUARE = 1e-3
"""Largest difference between the sides of a pixel that counts as square, as a share."""

_DESCRIPTION, _X, _Y, _UNIT = 270, 282, 283, 296

_NO_UNIT = 1
"""Resolution unit of a TIFF whose unit is told elsewhere."""

_MICROMETRES = {"m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4}
_MICROMETRES |= dict.fromkeys(("micron", "microns", "micrometer", "micrometre"), 1.0)


def stated_um_per_pixel(data: Data, header: Header) -> float | None:
    """Return the side of a pixel in micrometres.

    Args:
        data: The bytes of an image file.
        header: What it says of itself.

    Returns:
        None where the file states none that is believed: no unit, pixels that are not square, no sensible number.
    """
    if header.kind != "TIFF":
        return None
    try:
        tags = read_directory(data)
        description = tags.text(_DESCRIPTION, MOST_BYTES)
        x, y = _of_imagej(description, tags) if description.startswith(b"ImageJ=") else _of_ome(description, header)
    except (struct.error, LookupError, ValueError, ArithmeticError, expat.ExpatError):
        return None
    return x if LEAST_UM <= x <= MOST_UM and math.isclose(x, y, rel_tol=SQUARE) else None


def _of_imagej(description: bytes, tags: Directory) -> tuple[float, float]:
    """Return width and height of a pixel in micrometres; in its own unit ImageJ stores how many there are to one."""
    lines = dict(line.split("=", 1) for line in description.decode(errors="replace").splitlines() if "=" in line)
    unit = lines["unit"].replace("\\u00B5", "µ")  # as ImageJ writes it
    x, y = tags.ratio(_X), tags.ratio(_Y)
    if tags.number(_UNIT, _NO_UNIT) != _NO_UNIT or "yunit" in lines or x == y == 1:  # 1 is what nobody has set
        raise ValueError("no resolution in this unit")
    return _in_micrometres(1 / x, unit), _in_micrometres(1 / y, unit)


def _of_ome(description: bytes, header: Header) -> tuple[float, float]:
    """Return width and height of a pixel in micrometres, as the first image of OME-XML has them."""
    own = _first_pixels(description)
    if (int(own["SizeY"]), int(own["SizeX"])) != (header.height, header.width):
        raise ValueError("another image is described")
    x, y = (
        _in_micrometres(float(own[f"PhysicalSize{side}"]), own.get(f"PhysicalSize{side}Unit", "µm")) for side in "XY"
    )
    return x, y


def _in_micrometres(length: float, unit: str) -> float:
    return length * _MICROMETRES[unit.strip().replace("μ", "µ")]  # Greek mu, micro sign


class _FoundError(Exception):
    """The parser need not go on."""


def _first_pixels(xml: bytes) -> Mapping[str, str]:
    """Return the attributes of the first element `Pixels`; what follows is not looked at.

    Raises:
        KeyError: There is none.
        expat.ExpatError: It is no XML.
        ValueError: It has a document type, without which there are no entities.
    """
    found: dict[str, str] = {}

    def start(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2] == "Pixels":
            found.update(attributes)
            raise _FoundError

    def refuse(*_: Any) -> None:  # noqa: ANN401
        raise ValueError("a document type")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(xml, False)  # noqa: FBT003  its end may have been left out
    except _FoundError:
        return found
    raise KeyError("Pixels")
