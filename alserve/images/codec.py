"""Bytes to RGB pixels and back.

Files are read and written by Python, never by OpenCV, which crashes on some file names and reports a full disk as
success. Nothing is decoded before `alserve.images.header` has checked its kind, size and structure.
"""

import os
from itertools import product
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 40))  # our own cap, below, has a clear message

import cv2
import numpy as np
import numpy.typing as npt

from alserve.arrays import Float32, Image, Mask, UInt8
from alserve.errors import ImageError, ImageLimitError, ImageSizeError
from alserve.files import irregular
from alserve.images.header import ANY_SIZE, DAMAGED, MAX_PIXELS, Header, read_header
from alserve.places.place import FileTooLargeError, Place
from alserve.places.urls import Location, open_file, path_of

cv2.setNumThreads(1)  # the callers bring the threads
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # failures reach the user as our own errors


NO_MEMORY = "the image takes more memory to decode than an image of its size may"


_BYTES_PER_PIXEL, _SPARE_BYTES = 8, 1 << 26
"""The most that a file takes: 4 channels of 16 bits, and its metadata."""

MAX_FILE_BYTES = _SPARE_BYTES + _BYTES_PER_PIXEL * MAX_PIXELS
"""The most that is read of an image of `MAX_PIXELS`."""


MOST_LABELS, LEAST_SOFT, MOST_FLAT = 4, 128, 1 / 3
"""What tells soft edges from labels, see `has_soft_edges`."""

Levels = npt.NDArray[np.unsignedinteger]
"""A mask as it is stored."""


class Picture(NamedTuple):
    """A decoded image."""

    pixels: Image
    """uint8 [height, width, 3], RGB, upright."""
    warning: str | None = None
    """What a user should know of how the image was read."""


def peek_shape(image: Location) -> tuple[int, int] | None:
    """Return (height, width) of an image file as it will be decoded, upright, from its header.

    Returns:
        None if it has none, or is not on the disk.
    """
    path = path_of(image)
    try:
        if path is None or irregular(path):  # a pipe would wait for somebody to write
            return None
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            return read_header(data, ANY_SIZE).upright
    except (ImageError, OSError, ValueError):  # ValueError: the file is empty
        return None


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode an image to RGB: uint8 [height, width, 3], upright, see `decode_picture`.

    Args:
        data: The bytes of an image file.
        max_pixels: Pixels that are allowed.

    Raises:
        ImageError: The bytes are no usable image (see `alserve.images.header.read_header`) or end too early.
    """
    return decode_picture(data, read_header(data, max_pixels)).pixels


def decode_picture(data: bytes, header: Header) -> Picture:
    """Decode an image to RGB, with what should be known of how.

    It is upright (EXIF rotation applied, as a viewer shows it); 16-bit samples are divided by 256, or by 16 where none
    is above 4095, as cameras of 12 bits write them; grey, palette and CMYK become RGB; alpha is dropped; of several
    pages or frames the first is taken.

    Args:
        data: The bytes of an image file.
        header: What it says of itself.

    Raises:
        ImageError: The image is damaged, ends too early, or is of another size than its header says.
    """
    values = _imdecode(data, header, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
    warnings = [header.warning]
    if values.dtype == np.uint16:
        twelve = int(values.max()) < 1 << 12
        np.right_shift(values, 4 if twelve else 8, out=values)
        warnings += ["12 of 16 bits are used: divided by 16" if twelve else None]
    elif values.dtype != np.uint8:
        raise ImageError(DAMAGED)
    return Picture(values.astype(np.uint8, copy=False), "; ".join(filter(None, warnings)) or None)


def decode_mask(data: bytes) -> Mask:
    """Decode a mask: the `foreground` of its levels, see `decode_levels`.

    A JPEG, which changes levels everywhere, keeps no labels: there it is always what has half of the largest level.

    Args:
        data: The bytes of an image file.

    Returns:
        bool [height, width].

    Raises:
        ImageError: As for `decode`.
    """
    levels = decode_levels(data)
    return _upper_half(levels) if read_header(data).kind == "JPEG" else foreground(levels)


def decode_levels(data: bytes) -> Levels:
    """Decode the levels of a mask: of each pixel the largest colour channel, which is the grey level where it is grey.

    Of a layer that was painted on, which is transparent elsewhere, what is transparent has level 0; where nothing but
    black was painted there, the levels are the opacity. Transparent is what is no `foreground` of the opacity.

    Args:
        data: The bytes of an image file.

    Returns:
        uint8 or uint16 [height, width].

    Raises:
        ImageError: As for `decode`.
    """
    values = _imdecode(data, read_header(data), cv2.IMREAD_UNCHANGED)
    levels = np.atleast_3d(values.astype(np.uint16 if values.dtype == np.uint16 else np.uint8, copy=False))
    colour: Levels = levels[..., :3].max(axis=-1)
    if levels.shape[2] <= 3:  # noqa: PLR2004
        return colour
    opacity = np.ascontiguousarray(levels[..., 3])
    painted = foreground(opacity)
    if not painted.all() and not colour[painted].any():
        return opacity
    return np.where(painted, colour, 0).astype(levels.dtype, copy=False)


def foreground(levels: Levels) -> Mask:
    """Return which pixels of a mask are foreground.

    Those that are not 0; of a mask with soft edges those from half of its largest level on.

    Args:
        levels: uint8 or uint16 [height, width].

    Returns:
        bool [height, width].
    """
    return _upper_half(levels) if has_soft_edges(levels) else levels != 0


def _upper_half(levels: Levels) -> Mask:
    return levels >= max(1, (int(levels.max()) + 1) // 2)


def has_soft_edges(levels: Levels) -> bool:
    """Tell a mask whose edges fade from one whose levels are labels, such as 0 and 1, or 0, 1, 2, ... of instances.

    Programs that smooth outlines, scale masks or save them as JPEG leave levels between 0 and the largest along the
    edges. Edges are soft where all of this holds: more than `MOST_LABELS` levels beside 0 are used; the largest is at
    least `LEAST_SOFT`; and of the pixels between 0 and the largest, less than `MOST_FLAT` lie in areas, which are at
    least 2 x 2 pixels of one level. Labels fill areas.

    Args:
        levels: uint8 or uint16 [height, width].
    """
    largest = int(levels.max())
    if largest < LEAST_SOFT:
        return False
    size = int(np.iinfo(levels.dtype).max) + 1
    counts = cv2.calcHist([np.ascontiguousarray(levels)], [0], None, [size], [0, size]).ravel()
    if np.count_nonzero(counts[1:]) <= MOST_LABELS:
        return False
    between = (levels > 0) & (levels < largest)
    rows, columns = levels[1:] == levels[:-1], levels[:, 1:] == levels[:, :-1]
    squares = rows[:, 1:] & rows[:, :-1] & columns[1:]
    area = np.zeros(levels.shape, np.bool_)
    for down, right in product((slice(None, -1), slice(1, None)), repeat=2):
        area[down, right] |= squares
    return int((area & between).sum()) < MOST_FLAT * int(between.sum())


def decode_grey(data: bytes) -> UInt8:
    """Decode an image to grey levels: uint8 [height, width]; errors as for `decode_picture`."""
    return _imdecode(data, read_header(data), cv2.IMREAD_GRAYSCALE).astype(np.uint8, copy=False)


def _imdecode(data: bytes, header: Header, flags: int) -> npt.NDArray[np.integer | np.floating]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise ImageLimitError(NO_MEMORY) from None
        raise ImageError(DAMAGED) from None
    except MemoryError:
        raise ImageLimitError(NO_MEMORY) from None
    if pixels is None or sorted(pixels.shape[:2]) != sorted(header.upright):
        raise ImageError(DAMAGED)
    return pixels


def to_grey(values: Mask | Float32) -> UInt8:
    """Turn a mask or a map into grey levels.

    Args:
        values: [height, width], bool, or float32 from 0 to 1.

    Returns:
        uint8 [height, width]: 0 and 255 for a mask, 0 to 255 for a map.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    return cv2.convertScaleAbs(values.astype(np.float32, copy=False), alpha=255).astype(np.uint8, copy=False)


def encode_png(pixels: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    """Encode pixels as PNG.

    Args:
        pixels: [height, width] (grey), uint8 or uint16; or uint8 [height, width, 3] (RGB) or [height, width, 4] (RGBA).

    Returns:
        The bytes of the PNG file.
    """
    if pixels.ndim == 3:  # noqa: PLR2004
        swapped = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA  # noqa: PLR2004
        done, buffer = cv2.imencode(".png", cv2.cvtColor(pixels, swapped))
    else:  # a row of a mask or a map is much like the row above it
        done, buffer = cv2.imencode(".png", pixels, (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP))
    if not done:
        raise ImageError(f"a picture of shape {pixels.shape} cannot be written as PNG")
    return bytes(buffer)


def encode_jpeg(pixels: UInt8) -> bytes:
    """Encode uint8 [height, width, 3] RGB pixels as JPEG, of a quality (92) that shows no loss."""
    _, buffer = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 92))
    return bytes(buffer)


def read_image(path: Path) -> UInt8:
    """Read and `decode` an image file.

    Raises:
        ImageError: The file cannot be read or decoded; the message does not repeat the path.
    """
    return decode(read_bytes(path))


def read_bytes(path: Location, max_pixels: int = MAX_PIXELS) -> bytes:
    """Read the file of an image by its path or URL, see `read_file`."""
    return read_file(*open_file(path), max_pixels)


def read_file(place: Place, name: str, max_pixels: int = MAX_PIXELS) -> bytes:
    """Read the file of an image.

    Args:
        place: Where it is.
        name: The file's name there.
        max_pixels: Pixels that are allowed; a file larger than they can make it is not read.

    Raises:
        ImageSizeError: The file is too large.
        ImageError: It is a folder, a pipe or a device, or cannot be read, with the system's reason.
    """
    try:
        return place.read(name, _SPARE_BYTES + _BYTES_PER_PIXEL * max_pixels)
    except FileTooLargeError as error:
        raise ImageSizeError(f"the file has {error.size:,} bytes, more than {max_pixels:,} pixels take") from None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
