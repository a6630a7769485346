"""Bytes to RGB pixels and back.

Files are read and written by Python, never by OpenCV, which crashes on some file names and reports a full disk as
success. The header is checked before a pixel is decoded: kind of file, and number of pixels.
"""

import io
import os
import struct
import warnings
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 40))  # our own cap, below, has a clear message

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401  see below

from alserve.errors import ImageError, ImageKindError, ImageSizeError

cv2.setNumThreads(1)  # the callers bring the threads
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # failures reach the user as our own errors

Image.MAX_IMAGE_PIXELS = None  # our own cap, below, is lower and has a clear message
warnings.filterwarnings("ignore", module="PIL")  # notes on odd metadata, which nobody can mend
# Pillow loads its plugins for JPEG, PNG, BMP and GIF by itself. For any other kind it would load every one it has:
# those of TIFF and WebP, imported above, spare it that.

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
"""Kinds of file that are read, told from their content."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif"})
"""File names that a folder run picks up, in lower case."""

MAX_PIXELS = 50_000_000
"""An image of more pixels is refused before it is decoded, unless the caller allows more."""


_FIRST_TURNED = 5
"""EXIF orientations from 5 on swap rows and columns."""


class Header(NamedTuple):
    """What the first bytes of an image file say."""

    height: int
    """Rows as stored, before an EXIF rotation."""
    width: int
    """Columns as stored."""
    frames: int = 1
    """Pages of a TIFF, frames of an animation; the first one is read."""

    @property
    def warning(self) -> str | None:
        """What a user should know of how the image is read; None if there is nothing to say."""
        return f"the first of {self.frames} frames is used" if self.frames > 1 else None


def check_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Check kind and size of an image without decoding it.

    Args:
        data: The bytes of an image file.
        max_pixels: Pixels that are allowed.

    Raises:
        ImageKindError: It is no image, or of another kind than `FORMATS`.
        ImageSizeError: It is larger than allowed.
        ImageError: There are no bytes at all.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            frames = _count_frames(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error):
        raise ImageKindError(f"not an image of a known kind ({', '.join(FORMATS)}), or damaged") from None
    if height * width > max_pixels:
        raise ImageSizeError(f"the image has {width} x {height} pixels, more than the {max_pixels:,} allowed")
    return Header(height, width, frames)


def _count_frames(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # noqa: BLE001  Pillow raises anything over damage behind the first frame, which we do not read
        return 1


def peek_shape(path: Path) -> tuple[int, int] | None:
    """Give (height, width) of an image file as it will be decoded, upright, from its header; None if it has none."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= _FIRST_TURNED
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error, TypeError):
        return None
    return (width, height) if turned else (height, width)


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decode an image to RGB.

    It is upright (EXIF rotation applied, as a viewer shows it); 16-bit samples are divided by 256; grey, palette and
    CMYK become RGB; alpha is dropped; of several pages or frames the first is taken.

    Args:
        data: The bytes of an image file.
        max_pixels: Pixels that are allowed.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        ImageError: The bytes are no usable image (see `check_header`) or end too early.
    """
    check_header(data, max_pixels)
    return decode_pixels(data)


def decode_pixels(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode an image whose header has been checked, see `decode`."""
    pixels = _imdecode(data, cv2.IMREAD_COLOR_RGB)
    return pixels.astype(np.uint8, copy=False)


def decode_mask(data: bytes) -> npt.NDArray[np.bool_]:
    """Decode a mask: every value that is not zero is foreground, in any channel but alpha.

    Of a layer that was painted on, which is transparent elsewhere, what is transparent is background; where nothing but
    black was painted there, black is foreground.

    Args:
        data: The bytes of an image file.

    Returns:
        bool [height, width].

    Raises:
        ImageError: As for `decode`.
    """
    check_header(data)
    values = _imdecode(data, cv2.IMREAD_UNCHANGED).astype(np.bool_)
    if values.ndim == 2:  # noqa: PLR2004
        return values
    coloured = np.asarray(values[..., :3].any(axis=-1))
    painted = np.asarray(values[..., 3:].all(axis=-1))  # without alpha: everywhere
    return painted if not (coloured & painted).any() and not painted.all() else coloured & painted


def decode_grey(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode an image to grey levels: uint8 [height, width]; errors as for `decode`."""
    check_header(data)
    return _imdecode(data, cv2.IMREAD_GRAYSCALE).astype(np.uint8, copy=False)


def _imdecode(data: bytes, flags: int) -> npt.NDArray[np.integer | np.floating]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ImageError("the image is damaged, ends too early, or has samples of 32 bits")
    return pixels


def to_grey(values: npt.NDArray[np.bool_] | npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Turn a mask or a map into grey levels.

    Args:
        values: [height, width], bool, or float32 from 0 to 1.

    Returns:
        uint8 [height, width]: 0 and 255 for a mask, 0 to 255 for a map.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    return cv2.convertScaleAbs(values.astype(np.float32, copy=False), alpha=255).astype(np.uint8, copy=False)


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode pixels as PNG.

    Args:
        pixels: uint8 [height, width] (grey) or [height, width, 3] (RGB).

    Returns:
        The bytes of the PNG file.
    """
    if pixels.ndim == 3:  # noqa: PLR2004
        done, buffer = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    else:  # a row of a mask or a map is much like the row above it
        done, buffer = cv2.imencode(".png", pixels, (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP))
    if not done:
        raise ImageError(f"a picture of shape {pixels.shape} cannot be written as PNG")
    return bytes(buffer)


def encode_jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode uint8 [height, width, 3] RGB pixels as JPEG, of a quality (92) that shows no loss."""
    _, buffer = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 92))
    return bytes(buffer)


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read and `decode` an image file.

    Raises:
        ImageError: The file cannot be read or decoded; the message does not repeat the path.
    """
    return decode(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """Read a file, with the system's reason as an `ImageError` when that fails."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
