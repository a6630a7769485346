"""Forms: what a client's library makes of files and texts comes back; what is damaged is refused, and quickly."""

from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from alserve.service.form import MAX_FIELDS, Field, parse_form
from alserve.service.settings import MAX_BODY_BYTES

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda name: not set(name) & set('"\\%')
)


def encode(fields: list[Field]) -> tuple[bytes, str]:
    """A form's body and content type, as httpx makes them."""
    request = httpx.Request("POST", "http://x", files=[(name, (filename, data)) for name, filename, data in fields])
    return request.read(), request.headers["content-type"]


@given(st.lists(st.builds(Field, NAMES, st.none() | NAMES, st.binary()), min_size=1, max_size=8))
def test_a_form_comes_back(fields: list[Field]) -> None:
    assert parse_form(*encode(fields), max_files=8) == fields


@given(st.integers(0, 400), st.binary(max_size=20))
def test_a_damaged_form_is_read_or_refused(position: int, other: bytes) -> None:
    body, kind = encode([Field("image", "a.png", b"\r\n--\r\n\r\n"), Field("note", None, b"text")])
    with suppress(HTTPException):  # and nothing else
        parse_form(body[:position] + other + body[position + len(other) :], kind, max_files=1)
    if position < len(body) - len("--\r\n"):
        with pytest.raises(HTTPException, match="ends too early"):
            parse_form(body[:position], kind, max_files=1)


def test_a_form_with_too_much_is_refused() -> None:
    file, text = Field("image", "a.png", b""), Field("note", None, b"")
    parse_form(*encode([file, *[text] * MAX_FIELDS]), max_files=1)
    for fields in ([file, file], [text] * (MAX_FIELDS + 1), [file] * 100):
        with pytest.raises(HTTPException, match=r"too many files|more than 17 parts"):
            parse_form(*encode(fields), max_files=1)


@pytest.mark.parametrize("unit", [b"\r\n--bx", b"\r\n--", b"X: y\r\n", b"\r", b"\r\n--b\r\n\r\n"])
def test_a_large_form_of_near_boundaries_is_refused(unit: bytes) -> None:
    body = b"--b\r\n" + unit * (MAX_BODY_BYTES // len(unit))
    with pytest.raises(HTTPException):
        parse_form(body, "multipart/form-data; boundary=b", max_files=1)
