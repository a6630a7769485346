"""Fields of the JSON of annotation programs: their types, and checks of what stands in them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alserve.images.header import MAX_PIXELS


class Fields(BaseModel):
    """Part of a JSON file: the fields that are read, each of its type; others are passed over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


Size = Annotated[int, Field(strict=False)]
"""480.0 is taken for 480."""


def first_fault(error: ValidationError) -> str:
    """Return, in one line, which field cannot be read and why."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def checked_name(name: str) -> str:
    """Return an image's name, with forward slashes.

    Raises:
        ValueError: It ends in no file name.
    """
    name = name.replace("\\", "/")
    if name.rpartition("/")[2] in {"", ".", ".."}:
        raise ValueError(f"'{name}' names no image")
    return name


def checked_shape(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) in pixels.

    Raises:
        ValueError: No image that can be read has this size.
    """
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"an image is said to have {width} x {height} pixels")
    return height, width
