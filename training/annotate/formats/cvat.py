"""CVAT's format "CVAT for images 1.1": XML with polygons, masks, boxes and ellipses.

CVAT's polygons have no holes: a hole is a shape with the label "background" over another one (z_order, then the order
in the file). Masks are run lengths along the rows of a box, the first one background.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import cos, pi, radians, sin
from typing import Any, TypeVar
from xml.parsers import expat  # fetches nothing by itself; `_Parser` refuses entities, which could swell

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from alserve.arrays import Float64, Mask
from alserve.errors import DataError
from alserve.outputs.rle import run_lengths, runs_of
from training.annotate.canvas import BACKGROUND, Canvas, checked_ring
from training.annotate.fields import checked_name, checked_shape, first_fault
from training.annotate.formats import FOREGROUND, FORMATS, Annotation, Draft, Format, Source

SETUP = f'[{{"name": "{FOREGROUND}", "attributes": []}}, {{"name": "background", "attributes": []}}]'
"""The labels that the drafts, and holes, need."""

DEEPEST = 32
"""Elements within elements; CVAT nests 8."""

LONGEST = 64 * 2**20
"""Bytes of one element; expat 2.5 takes time that grows with the square of it."""

_CHUNK = 2**20

_ELLIPSE_CORNERS = 256


class _Attributes(BaseModel):
    """The attributes of an element that are read, each of its type; others are passed over."""

    model_config = ConfigDict(allow_inf_nan=False)


class _Image(_Attributes):
    name: str
    width: int
    height: int


class _Shape(_Attributes):
    label: str
    z_order: int = 0

    def paint(self, canvas: Canvas) -> None:
        raise NotImplementedError


class _Polygon(_Shape):
    points: str

    def paint(self, canvas: Canvas) -> None:
        corners = _numbers(self.points.replace(";", ","), float)
        if corners.size % 2:
            raise ValueError("a polygon's last corner has no y")
        canvas.fill([checked_ring(corners.reshape(-1, 2), canvas.mask.shape)], self.label)


class _Box(_Shape):
    xtl: float
    ytl: float
    xbr: float
    ybr: float
    rotation: float = 0.0

    def paint(self, canvas: Canvas) -> None:
        corners = [(self.xtl, self.ytl), (self.xbr, self.ytl), (self.xbr, self.ybr), (self.xtl, self.ybr)]
        ring = checked_ring(np.array(corners), canvas.mask.shape)
        canvas.fill([_turned(ring, self.rotation)], self.label)


class _Ellipse(_Shape):
    cx: float
    cy: float
    rx: float
    ry: float
    rotation: float = 0.0

    def paint(self, canvas: Canvas) -> None:
        angles = np.arange(_ELLIPSE_CORNERS) * (2 * pi / _ELLIPSE_CORNERS)
        ring = np.stack([self.cx + self.rx * np.cos(angles), self.cy + self.ry * np.sin(angles)], axis=1)
        canvas.fill([_turned(checked_ring(ring, canvas.mask.shape), self.rotation)], self.label)


class _Mask(_Shape):
    rle: str
    left: int
    top: int
    width: int
    height: int

    def paint(self, canvas: Canvas) -> None:
        window = canvas.window(self.left, self.top, self.width, self.height)
        if self.rle.count(",") > window.size:
            raise ValueError("a mask has more run lengths than pixels")
        counts = _numbers(self.rle, int)
        runs = run_lengths({"size": window.shape, "counts": counts}, window.shape)
        painted = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(window.shape)
        window[painted] = self.label.casefold() not in BACKGROUND


Element = TypeVar("Element", bound=_Attributes)

_SHAPES: dict[str, type[_Shape]] = {"polygon": _Polygon, "mask": _Mask, "box": _Box, "ellipse": _Ellipse}
_PASSED_OVER = frozenset({"tag"})
"""What says something of the image as a whole."""


def _numbers(text: str, kind: type[int] | type[float]) -> npt.NDArray[Any]:
    """Read numbers with commas between them, without keeping a Python object for each."""
    try:
        found = np.fromiter((kind(item[0]) for item in re.finditer("[^,]+", text)), kind)
    except (ValueError, OverflowError):
        found = np.empty(0)
    if len(found) != text.count(",") + 1:
        raise ValueError(f"'{text[:40]}': are no numbers of the kind that belongs here")
    return found


def _turned(ring: Float64, degrees: float) -> Float64:
    """Turn a ring clockwise, as the image is seen, around the middle of its box."""
    middle = (ring.min(axis=0) + ring.max(axis=0)) / 2
    sine, cosine = sin(radians(degrees)), cos(radians(degrees))
    return np.asarray((ring - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle)


class _Parser:
    """Collects the shapes of each image."""

    def __init__(self) -> None:
        self.finished: list[tuple[_Image, list[_Shape]]] = []
        self._depth = 0
        self._image: _Image | None = None
        self._shapes: list[_Shape] = []
        self.expat = expat.ParserCreate()
        self.expat.StartDoctypeDeclHandler = self._refuse
        self.expat.StartElementHandler = self._start
        self.expat.EndElementHandler = self._end

    def _refuse(self, *_: object) -> None:
        raise ValueError("it defines XML entities (DOCTYPE), which CVAT does not")

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"it nests more than {DEEPEST} elements")
        match self._depth:
            case 1 if tag != "annotations":
                raise ValueError(f"it is XML that begins with <{tag[:40]}>, and not 'CVAT for images 1.1'")
            case 2 if tag == "track":
                raise ValueError("it is 'CVAT for video'; export it as 'CVAT for images 1.1'")
            case 2 if tag == "image":
                self._image = _read(_Image, attributes, "<image>")
            case 3 if self._image is not None and tag not in _PASSED_OVER:
                if tag not in _SHAPES:
                    known = ", ".join(_SHAPES)
                    raise ValueError(f"{self._image.name}: holds <{tag[:40]}>, which has no area; draw one of: {known}")
                self._shapes.append(_read(_SHAPES[tag], attributes, f"{self._image.name}: <{tag}>"))

    def _end(self, _tag: str) -> None:
        self._depth -= 1
        if self._depth == 1 and self._image is not None:
            self.finished.append((self._image, self._shapes))
            self._image, self._shapes = None, []


def _read(kind: type[Element], attributes: Mapping[str, str], where: str) -> Element:
    try:
        return kind.model_validate(attributes)
    except ValidationError as error:
        raise ValueError(f"{where} {first_fault(error)}") from None


def _painted(image: _Image, shapes: Sequence[_Shape]) -> Iterator[Annotation]:
    name = checked_name(image.name)
    canvas = Canvas(checked_shape(image.height, image.width))
    try:
        for shape in sorted(shapes, key=lambda shape: shape.z_order):
            shape.paint(canvas)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if shapes:
        yield Annotation(name, canvas.mask)


def read_cvat(source: Source) -> Iterator[Annotation]:
    """Read CVAT's XML: the shapes of each image, painted in their order; images without any are left out."""
    parser = _Parser()
    with source.path.open("rb") as file:
        try:
            while chunk := file.read(_CHUNK):
                parser.expat.Parse(chunk, False)  # noqa: FBT003  not the last
                for image, shapes in parser.finished:
                    yield from _painted(image, shapes)
                parser.finished.clear()
                if file.tell() - parser.expat.CurrentByteIndex > LONGEST:
                    raise ValueError(f"an element takes more than {LONGEST:,} bytes")
            parser.expat.Parse(b"", True)  # noqa: FBT003
        except (expat.ExpatError, LookupError) as error:  # LookupError: an unknown encoding
            raise DataError(f"{source.path}: is no XML file, or ends too early ({error}); export it again") from None


_HEAD = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task><labels><label><name>{FOREGROUND}</name><type>mask</type><attributes/></label></labels></task>
  </meta>"""
"""Datumaro, with which CVAT reads other programs' files, takes none that has no <meta>."""


def cvat_file(drafts: Sequence[Draft]) -> bytes:
    """Return CVAT's XML: all images, and a mask for each draft that is not empty.

    Raises:
        DataError: XML cannot hold an image's name.
    """
    lines = [_HEAD]
    for number, draft in enumerate(drafts):
        if _NO_TEXT.search(draft.name):
            raise DataError(f"{draft.name!r}: XML cannot hold this name; give the image another")
        height, width = draft.shape
        lines.append(f'  <image id="{number}" name="{escape(draft.name)}" width="{width}" height="{height}">')
        if draft.mask is not None and draft.mask.any():
            lines.append(f"    {_mask_element(draft.mask)}")
        lines.append("  </image>")
    return "\n".join([*lines, "</annotations>", ""]).encode()


_NO_TEXT = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What an attribute of XML cannot hold, or not as it is."""


def _mask_element(mask: Mask) -> str:
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    runs = runs_of(mask[top : top + height, left : left + width].ravel())
    return (
        f'<mask label="{FOREGROUND}" source="auto" occluded="0" rle="{", ".join(map(str, runs))}" '
        f'left="{left}" top="{top}" width="{width}" height="{height}" z_order="0"/>'
    )


def _recognize(source: Source) -> bool:
    if not source.path.is_file():
        return False
    with source.path.open("rb") as file:
        return file.read(_CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


FORMATS.add("cvat")(
    Format(
        description="CVAT's export as 'CVAT for images 1.1' (annotations.xml)",
        recognize=_recognize,
        read=read_cvat,
        write=lambda drafts, _prefix: cvat_file(drafts),
        setup=f"labels of the CVAT task (Raw); 'background' cuts holes:\n{SETUP}",
    )
)
