"""What a Python program may pass as an image: files, their bytes, Pillow images, arrays."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, Union

import cv2
import numpy as np
import numpy.typing as npt

from alserve.arrays import Image
from alserve.errors import ImageError
from alserve.images.codec import decode, read_bytes, read_image
from alserve.images.header import read_header
from alserve.images.resolution import stated_um_per_pixel
from alserve.paths import printable

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

ImageInput = Union[str, "os.PathLike[str]", bytes, npt.NDArray[Any], "PillowImage"]
"""An image of any size: the path or the bytes of an image file, which is turned upright; or pixels, taken as they are.

Pixels are a Pillow image or an array [height, width] (grey), [height, width, 3] (RGB) or [height, width, 4] (RGBA, of
which alpha is dropped), in uint8, or in floats from 0 to 1.
"""

WANTED = "give a path, the bytes of a file, a Pillow image, or an array [height, width, 3], RGB, uint8 or 0 to 1"

_GREY, _COLOURS, _WITH_ALPHA = 1, 3, 4
"""Channels."""


def is_image(value: object) -> TypeGuard[ImageInput]:
    """Tell one image from several; what is neither counts as one, and is refused by `pixels_of`."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "OUS"  # else names, or images, of several
    if isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or _is_pillow(value):
        return True
    return not hasattr(value, "__iter__") or bool(getattr(value, "ndim", 0) > 1)  # such as another library's tensor


def path_of(image: object) -> Path | None:
    """Return the path that was passed as an image, if one was."""
    return Path(image) if isinstance(image, str | os.PathLike) else None


def pixels_of(image: ImageInput) -> Image:
    """Return an image's pixels.

    Args:
        image: As a user passes it.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        ImageError: It is no image, or cannot be read; the message begins with its path, if it has one.
    """
    path = path_of(image)
    if path is not None:
        try:
            return read_image(path)
        except ImageError as error:
            raise type(error)(f"{printable(str(path))}: {error}") from None
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image))
    if _is_pillow(image):
        return _from_pillow(image)
    if not hasattr(image, "__array__"):
        raise ImageError(f"{type(image).__name__} is no image; {WANTED}")
    return _from_array(np.asarray(image))


def stated_um_per_pixel_of(image: ImageInput | None) -> float | None:
    """Return the side of a pixel in micrometres as the file of an image states it.

    Args:
        image: As a user passes it.

    Returns:
        None where the file states none, or is gone, or there is none, see `alserve.images.resolution`.
    """
    path = path_of(image)
    try:
        if path is not None:
            data = read_bytes(path)
        elif isinstance(image, bytes | bytearray | memoryview):
            data = bytes(image)
        else:
            return None
        return stated_um_per_pixel(data, read_header(data))
    except ImageError:
        return None


def _is_pillow(value: object) -> TypeGuard["PillowImage"]:
    pillow = sys.modules.get("PIL.Image")  # whoever has an image of its has loaded it
    return pillow is not None and isinstance(value, pillow.Image)


def _from_pillow(image: "PillowImage") -> Image:
    if image.mode.startswith(("I", "F")):
        raise ImageError(
            f"a Pillow image of mode {image.mode} has more than 8 bits; give its file, or scale it to 0..255 as mode L"
        )
    try:
        return _from_array(np.asarray(image.convert("RGB")))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reads a file only now
        raise ImageError(f"this Pillow image cannot be read: {error}") from None


def _from_array(array: npt.NDArray[Any]) -> Image:
    shape = array.shape
    channels = shape[2] if array.ndim == 3 else _GREY  # noqa: PLR2004
    if array.ndim not in {2, 3} or channels not in {_GREY, _COLOURS, _WITH_ALPHA} or not array.size:
        hint = ""
        if array.ndim == 3 and shape[0] in {_GREY, _COLOURS, _WITH_ALPHA}:  # noqa: PLR2004
            hint = "; move the channels last, with .transpose(1, 2, 0)"
        elif array.ndim == 4:  # noqa: PLR2004
            hint = "; pass several images as list(array)"
        raise ImageError(f"an array of shape {shape} is no image{hint or f'; {WANTED}'}")
    values = _to_uint8(array)
    if channels == _COLOURS:
        return values
    if channels == _WITH_ALPHA:
        return np.ascontiguousarray(values[..., :_COLOURS])
    return cv2.cvtColor(np.ascontiguousarray(values), cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)


def _to_uint8(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())  # not a number, if any is
        if not (low >= 0 and high <= 1):
            found = "values that are no numbers" if np.isnan(low) else f"values from {low:.4g} to {high:.4g}"
            raise ImageError(f"an array of {array.dtype} with {found}; scale it to 0..1, or to 0..255 in uint8")
        return np.asarray(np.rint(array * 255), np.uint8)
    if array.dtype == np.uint16:
        raise ImageError(
            "an array of uint16; divide it by 256 (by 16 for cameras of 12 bits) and give uint8, or give the file"
        )
    raise ImageError(f"an array of {array.dtype} is no image; give uint8, 0 to 255, or floats from 0 to 1")
