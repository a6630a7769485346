"""Forms (multipart/form-data, RFC 7578) taken apart, in memory.

A form is whole before it is looked at, so `bytes.split` finds its parts. A parser that goes through it piece by piece
takes seconds for one that consists of near-boundaries, and nobody else is answered meanwhile.
"""

from typing import NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException

CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1"})
"""Charsets of a form; Python knows others that are no charsets at all, such as rot13."""

MAX_FIELDS = 16
"""Fields beside the files."""

_MAX_HEAD = 16 * 2**10
_MAX_BOUNDARY = 256


class Field(NamedTuple):
    """A part of a form."""

    name: str
    filename: str | None
    """None where it is a text and no file."""
    data: bytes


def parse_form(body: bytes, content_type: str, *, max_files: int) -> list[Field]:
    """Take a form apart.

    Args:
        body: All of it.
        content_type: The request's header.
        max_files: Files that it may hold.

    Raises:
        HTTPException: 400: it is damaged, holds too much, or is in a charset that is none.
    """
    _, options = parse_options_header(content_type)
    charset = _text(options.get(b"charset", b"utf-8")).lower()
    if charset not in CHARSETS:
        raise HTTPException(400, f"a form's charset cannot be {charset[:40]!r}; send it in utf-8, or name none")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise HTTPException(400, "the Content-Type of the form names no boundary that can be used")
    most = max_files + MAX_FIELDS
    _, *pieces = (b"\r\n" + body).split(b"\r\n--" + boundary, most + 1)
    end = next((index for index, piece in enumerate(pieces) if piece.startswith(b"--")), None)
    if end is None:
        raise HTTPException(
            400,
            f"the form has more than {most} parts; send fewer" if len(pieces) > most else "the form ends too early",
        )
    fields = [_field(piece) for piece in pieces[:end]]
    files = sum(field.filename is not None for field in fields)
    if files > max_files or len(fields) - files > MAX_FIELDS:
        raise HTTPException(400, f"too many files or fields in the form; at most {max_files} and {MAX_FIELDS}")
    return fields


def _field(piece: bytes) -> Field:
    """Read one part: its header lines, an empty line, its content."""
    head, blank, data = piece.partition(b"\r\n\r\n")
    if blank and len(head) <= _MAX_HEAD:
        for line in head.split(b"\r\n"):
            header, _, value = line.partition(b":")
            if header.strip().lower() == b"content-disposition":
                _, options = parse_options_header(value)
                if (name := options.get(b"name")) is not None:
                    filename = options.get(b"filename")
                    return Field(_text(name), None if filename is None else _text(filename), data)
    raise HTTPException(
        400, "a part of the form has no Content-Disposition with a name; with curl: -F image=@photo.jpg"
    )


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
