"""COCO files: polygons, and run lengths down the columns, as numbers or as text (see `alserve.outputs.rle`).

pycocotools draws the polygons; it decodes no text, because its C code ends the process over damaged text.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco

from alserve.arrays import Float64, Mask
from alserve.objects import find_objects
from alserve.outputs.rle import encode_rle, run_lengths
from training.annotate.fields import Fields, Size, checked_name, checked_shape
from training.annotate.formats import FOREGROUND, FORMATS, Annotation, Draft, Format, Source

POLYGON_NUMBERS = 6
"""A polygon has three corners at least, of two numbers each."""

MOST_OUTLINE = 4_000_000
"""Largest length of the polygons of an image, in pixels: memory and time grow with it."""


def decode_regions(regions: Sequence[Any], shape: tuple[int, int]) -> Mask:
    """Decode what stands under `segmentation` of all of an image's regions, and join them.

    However many there are, memory is that of a few masks.

    Args:
        regions: Each a list of polygons, x, y, x, y .. in pixels; or a dict of `size`, [height, width], and `counts`.
        shape: (height, width) of the image in pixels.

    Returns:
        bool [height, width].

    Raises:
        ValueError, OverflowError: One does not fit the shape, or is damaged.
        KeyError, TypeError: One is something else.
    """
    pixels = shape[0] * shape[1]
    changes = np.zeros(pixels + 1, np.int32)  # +1 where a region begins, -1 where it ends, down the columns
    outline = 0.0
    for region in regions:
        if isinstance(region, list):
            polygons = [_corners(polygon, shape) for polygon in region]
            if not polygons:
                raise ValueError("a region without polygons")
            outline += sum(map(_length, polygons))
            if outline > MOST_OUTLINE:
                raise ValueError(f"its polygons are longer than {MOST_OUTLINE:,} pixels; export run lengths")
            drawn = coco.merge(coco.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *shape))
            runs = run_lengths({**drawn, "counts": drawn["counts"].decode()}, shape)
        else:
            runs = run_lengths(region, shape)
        edges = np.cumsum(runs)
        starts, ends = edges[::2], edges[1::2]
        np.add.at(changes, starts[: len(ends)], 1)  # a last run of background ends nowhere
        np.add.at(changes, ends, -1)
    covered = np.cumsum(changes[:-1]) > 0
    return covered.reshape(shape, order="F")


def _corners(polygon: Any, shape: tuple[int, int]) -> Float64:  # noqa: ANN401
    """Read a polygon: [corners, 2], of x and y."""
    corners = np.asarray(polygon, np.float64)
    if corners.ndim != 1 or corners.size < POLYGON_NUMBERS or corners.size % 2:
        raise ValueError("a polygon has fewer than three corners")
    if not ((corners >= -1) & (corners <= np.tile(shape[::-1], corners.size // 2) + 1)).all():
        raise ValueError("a polygon reaches out of the image")
    return corners.reshape(-1, 2)


def _length(corners: Float64) -> float:
    """Return how many pixels the outline of a polygon has."""
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())


class _Image(Fields):
    id: int | str
    file_name: str
    height: Size
    width: Size


class _Region(Fields):
    image_id: int | str
    segmentation: Any


class _File(Fields):
    images: list[_Image]
    annotations: list[_Region]


def read_coco(source: Source) -> Iterator[Annotation]:
    """Read a COCO file: polygons or run lengths, joined for each image."""
    content = _File.model_validate(source.content)
    regions: dict[int | str, list[Any]] = {image.id: [] for image in content.images}
    if len(regions) < len(content.images):
        raise ValueError("two images have the same id")
    for annotation in content.annotations:
        if annotation.image_id not in regions:
            raise ValueError(f"there is no image with id {annotation.image_id}")
        regions[annotation.image_id].append(annotation.segmentation)
    for image in content.images:
        name = checked_name(image.file_name)
        shape = checked_shape(image.height, image.width)
        if not regions[image.id]:
            continue
        try:
            mask = decode_regions(regions[image.id], shape)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{name}: {error}") from None
        yield Annotation(name, mask)


def run_length_region(mask: Mask) -> Iterator[dict[str, Any]]:
    """Yield one region: a compressed run length of all foreground."""
    box = cv2.boundingRect(mask.astype(np.uint8))
    yield {"segmentation": encode_rle(mask), "area": int(mask.sum()), "bbox": list(box), "iscrowd": 1}


def polygon_regions(mask: Mask) -> Iterator[dict[str, Any]]:
    """Yield a region for each object: its outline, which runs along holes on its way, as COCO's polygons know none."""
    for item in find_objects(mask):
        outer, holes = item.outline
        start = outer[:1]
        line = np.concatenate([outer, *(part for hole in holes for part in (start, hole, hole[:1]))])
        yield {"segmentation": [line.ravel().tolist()], "area": item.area, "bbox": list(item.box), "iscrowd": 0}


def coco_file(
    drafts: Iterable[Draft], regions: Callable[[Mask], Iterable[dict[str, Any]]] = run_length_region
) -> dict[str, Any]:
    """Return a COCO file: all images, and the regions of each draft that is not empty.

    Args:
        drafts: The images.
        regions: What is written of a mask.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, draft in enumerate(drafts, start=1):
        height, width = draft.shape
        images.append({"id": number, "file_name": draft.name, "height": height, "width": width})
        if draft.mask is not None and draft.mask.any():
            for region in regions(draft.mask):
                annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, **region})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": FOREGROUND}]}


def _recognize(source: Source) -> bool:
    return isinstance(source.content, dict) and {"images", "annotations"} <= source.content.keys()


def _write(drafts: Sequence[Draft], _prefix: str) -> bytes:
    return json.dumps(coco_file(drafts)).encode()


def _write_polygons(drafts: Sequence[Draft], _prefix: str) -> bytes:
    return json.dumps(coco_file(drafts, polygon_regions)).encode()


_COCO = Format(description="a COCO file", recognize=_recognize, read=read_coco, write=_write)

FORMATS.add("coco")(_COCO)
FORMATS.add("coco-polygons")(replace(_COCO, write=_write_polygons))
