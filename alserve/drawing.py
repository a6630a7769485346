"""Pictures of predictions: outlined masks, heat maps, contact sheets. Pure functions from arrays to arrays.

Colour-blind eyes tell the colours apart too: Okabe and Ito's yellow and sky blue for outlines, drawn on a
dark line so that they show on any ground; for heat matplotlib's inferno, whose lightness rises evenly.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from alserve.arrays import Float32, Image, Mask
from alserve.geometry import resize
from alserve.images.codec import to_grey
from alserve.images.header import MAX_PIXELS

Colour = tuple[int, int, int]

PREDICTED: Colour = (240, 228, 66)
"""Outline of what the model found: yellow."""
TRUE: Colour = (86, 180, 233)
"""Outline of what an expert drew: sky blue."""

TINT = 0.2
"""Share of the outline's colour in the pixels inside it, 0 to 1."""
HEAT = 0.6
"""Share of the heat colour in a heat map, 0 to 1; the rest is the image in grey."""

MAX_DRAWN = MAX_PIXELS
"""Pixels of the largest overlay."""

_CASING: Colour = (24, 24, 32)
_INK: Colour = (32, 34, 40)
_PALE_INK: Colour = (112, 116, 126)


def overlay(image: Image, mask: Mask, *, colour: Colour = PREDICTED) -> Image:
    """Outline and lightly tint the foreground of an image.

    Args:
        image: uint8 [height, width, 3], RGB.
        mask: bool [height, width].
        colour: RGB of outline and tint.

    Returns:
        uint8 [height, width, 3], RGB; the line is wider on larger images. An image of more than `MAX_DRAWN` pixels is
        drawn that much smaller.
    """
    if mask.size > MAX_DRAWN:
        scale = (MAX_DRAWN / mask.size) ** 0.5
        shape = (max(1, int(mask.shape[0] * scale)), max(1, int(mask.shape[1] * scale)))
        image, mask = resize(image, shape), resize(to_grey(mask), shape) > 127  # noqa: PLR2004  half of 255
    tinted = cv2.addWeighted(image, 1 - TINT, np.full_like(image, colour), TINT, 0)
    picture = np.where(mask[..., None], tinted, image)
    line = max(1, round(min(mask.shape) / 250))
    margin = line + 2  # the edge of the image is no outline: trace it outside
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), *(margin,) * 4, cv2.BORDER_REPLICATE)
    contours, _ = cv2.findContours(padded, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(-margin, -margin))
    for shade, thickness in ((_CASING, line + 2), (colour, line)):
        cv2.drawContours(picture, contours, -1, shade, thickness, cv2.LINE_AA)
    return picture


def heat_map(image: Image, cam: Float32) -> Image:
    """Lay a class activation map over a grey image: brighter and warmer where the class was seen.

    Args:
        image: uint8 [height, width, 3], RGB.
        cam: float32 [height, width], 0 to 1.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    heat = cv2.cvtColor(cv2.applyColorMap(to_grey(cam), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(heat, HEAT, grey, 1 - HEAT, 0).astype(np.uint8, copy=False)


def panels(image: Image, cam: Float32, mask: Mask, truth: Mask | None = None) -> dict[str, Image]:
    """Return the pictures that explain one prediction, by heading.

    Args:
        image: uint8 [height, width, 3], RGB.
        cam: float32 [height, width], 0 to 1, class activation map.
        mask: bool [height, width], the model's.
        truth: bool [height, width], the expert's mask where there is one.

    Returns:
        "Image", "Class activation", "Mask" and, with a truth, "Truth": each uint8 [height, width, 3], RGB.
    """
    pictures = {
        "Image": image,
        "Class activation": heat_map(image, cam),
        "Mask": overlay(image, mask),
    }
    return pictures if truth is None else pictures | {"Truth": overlay(image, truth, colour=TRUE)}


def contact_sheet(rows: Sequence[tuple[str, Mapping[str, Image]]], *, width: int = 320) -> Image:
    """Set pictures out in a table: a column a heading, a row an image, its caption above it.

    Args:
        rows: At least one (caption, pictures by heading); a picture is uint8 [height, width, 3], RGB.
        width: Width of a column in pixels.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    gap = size = max(10, width // 20)
    line = 2 * size
    headings = list(dict.fromkeys(heading for _, pictures in rows for heading in pictures))
    lefts = {heading: gap + index * (width + gap) for index, heading in enumerate(headings)}
    fitted = [{heading: _fitted(picture, width) for heading, picture in row.items()} for _, row in rows]
    heights = [max(picture.shape[0] for picture in row.values()) for row in fitted]
    shape = (line + sum(line + height + gap for height in heights), gap + len(headings) * (width + gap), 3)
    sheet = np.full(shape, 255, np.uint8)
    for heading, left in lefts.items():
        _write(sheet, heading, (left, line - size // 4), _PALE_INK, size)
    top = line
    for (caption, _), row, height in zip(rows, fitted, heights, strict=True):
        _write(sheet, caption, (gap, top + line - size // 2), _INK, size)
        for heading, picture in row.items():
            left = lefts[heading]
            sheet[top + line : top + line + picture.shape[0], left : left + width] = picture
        top += line + height + gap
    return sheet


def _fitted(picture: Image, width: int) -> Image:
    """Scale a picture to a width."""
    return resize(picture, (max(1, round(picture.shape[0] * width / picture.shape[1])), width))


def _write(sheet: Image, text: str, foot: tuple[int, int], ink: Colour, size: int) -> None:
    """Write on a sheet, from the foot (x, y) of the first letter; OpenCV's own font knows most scripts."""
    cv2.putText(sheet, text, foot, ink, cv2.FontFace("sans"), size, 400)
