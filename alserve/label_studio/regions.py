"""Masks and classes as Label Studio's regions: what a brush painted, polygons, choices."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from alserve.arrays import Mask
from alserve.label_studio.brush import encode_brush
from alserve.label_studio.config import Control
from alserve.objects import Ring, find_objects

TOLERANCE = 1.0
"""Pixels by which a polygon may leave the outline of its object, so that it has few enough corners to correct."""

_CORNERS = 3

Region = dict[str, Any]


def mask_regions(control: Control, label: str, mask: Mask) -> list[Region]:
    """Return a mask as regions of a control; none where it has no foreground.

    Args:
        control: A brush, which gets one region, or polygons, which get one for each object, without its holes.
        label: One of its labels.
        mask: bool [height, width].
    """
    if not mask.any():
        return []
    if control.kind == "BrushLabels":
        return [_region(control, mask.shape, 1, {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]})]
    return [
        _region(control, mask.shape, number, {"points": points, "closed": True, "polygonlabels": [label]})
        for number, points in enumerate(_polygons(mask), start=1)
    ]


def choice_region(control: Control, label: str, shape: tuple[int, int]) -> Region:
    """Return the choice of a label for an image of (height, width) pixels."""
    return _region(control, shape, 1, {"choices": [label]})


def _region(control: Control, shape: tuple[int, ...], number: int, value: Region) -> Region:
    return {
        "id": f"{control.name}-{number}",
        "type": control.kind.lower(),
        "from_name": control.name,
        "to_name": control.image,
        "original_height": shape[0],
        "original_width": shape[1],
        "image_rotation": 0,
        "value": value,
    }


def _polygons(mask: Mask) -> Iterator[list[list[float]]]:
    """Yield the outer outline of each object: corners, x and y in percent of width and height."""
    percent = 100 / np.array(mask.shape[::-1])
    for item in find_objects(mask):
        yield (_simple(item.outline.outer) * percent).tolist()


def _simple(ring: Ring) -> Ring:
    found: Ring = cv2.approxPolyDP(ring.astype(np.float32), TOLERANCE, closed=True)[:, 0].astype(np.float64)
    return found if len(found) >= _CORNERS else ring
