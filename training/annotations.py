"""Masks as annotation programs keep them: pictures, COCO files, Label Studio's JSON."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from pycocotools import mask as coco

from alserve.errors import DataError
from alserve.terminal import say
from training.brush import decode_brush, encode_brush
from training.dataset import Mask, find_pictures, read_mask

FOREGROUND = "foreground"
"""The one label of drafts."""

POLYGON_NUMBERS = 6
"""A polygon has three corners at least, of two numbers each."""

UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio sets before the name of an uploaded file."""


@dataclass(frozen=True)
class Annotation:
    """One image's mask."""

    name: str
    """The image's path or file name, with forward slashes, as the annotation program knows it."""
    mask: Mask | None
    """bool [height, width]; None where the person skipped the image."""


@dataclass(frozen=True)
class Draft:
    """An image to annotate."""

    name: str
    """Its path, with forward slashes."""
    shape: tuple[int, int]
    """(height, width) in pixels."""
    mask: Mask | None
    """bool [height, width]; None where there is no draft."""


def read_annotations(source: Path) -> Iterator[Annotation]:
    """Read the masks that an annotation program wrote.

    Args:
        source: A folder of mask pictures; a COCO file, with polygons or run lengths; or Label Studio's JSON export,
            with brush regions.

    Yields:
        One annotation an image; all regions of an image are its foreground, whatever their label. Images without any
        region are left out of a COCO file, which does not tell whether they were looked at.

    Raises:
        DataError: It is none of these, or a mask in it cannot be decoded.
    """
    if source.is_dir():
        yield from _read_pictures(source)
        return
    try:
        content = json.loads(source.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{source}: no such file or folder") from None
    except ValueError:
        raise DataError(f"{source}: is no JSON file, or ends too early; export it again") from None
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        read = _read_coco(content)
    elif isinstance(content, list) and all(
        isinstance(t, dict) and {"data", "annotations"} <= t.keys() for t in content
    ):
        read = _read_label_studio(content)
    else:
        raise DataError(f"{source}: is neither a COCO file nor Label Studio's export as 'JSON' (not 'JSON-MIN')")
    try:
        yield from read
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{source}: a mask cannot be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _read_pictures(folder: Path) -> Iterator[Annotation]:
    for path in find_pictures(folder).values():
        yield Annotation(path.relative_to(folder).as_posix(), read_mask(path))


def _read_coco(content: dict[str, Any]) -> Iterator[Annotation]:
    regions: dict[Any, list[Any]] = {}
    for annotation in content["annotations"]:
        regions.setdefault(annotation["image_id"], []).append(annotation["segmentation"])
    for image in content["images"]:
        shape = (int(image["height"]), int(image["width"]))
        masks = [_decode_coco(region, shape, image["file_name"]) for region in regions.pop(image["id"], ())]
        if masks:
            yield Annotation(image["file_name"].replace("\\", "/"), np.logical_or.reduce(masks))
    if regions:
        raise ValueError(f"there is no image with id {next(iter(regions))}")


def _decode_coco(region: Any, shape: tuple[int, int], name: str) -> Mask:  # noqa: ANN401  whatever the JSON holds
    height, width = shape
    if isinstance(region, list):
        if not region or any(len(corners) < POLYGON_NUMBERS or len(corners) % 2 for corners in region):
            raise ValueError(f"{name}: a polygon has fewer than three corners")
        runs = coco.merge(coco.frPyObjects(region, height, width))
    elif tuple(region["size"]) != shape:
        raise ValueError(f"{name}: its run lengths are of size {region['size']}, not {list(shape)}")
    elif isinstance(region["counts"], list):
        if sum(region["counts"]) != height * width or min(region["counts"]) < 0:
            raise ValueError(f"{name}: its run lengths do not add up to {height} x {width} pixels")
        runs = coco.frPyObjects(region, height, width)
    else:
        runs = {"size": [height, width], "counts": region["counts"].encode()}
    return np.asarray(coco.decode(runs), np.bool_)


def _read_label_studio(tasks: Sequence[dict[str, Any]]) -> Iterator[Annotation]:
    for task in tasks:
        finished = [a for a in task["annotations"] if not a.get("was_cancelled")]
        if not task["annotations"]:
            continue
        name = _image_of(task)
        if not finished:
            yield Annotation(name, None)
            continue
        latest = max(finished, key=lambda annotation: str(annotation.get("updated_at", "")))
        masks = _painted(latest["result"], name)
        if masks:
            yield Annotation(name, np.asarray(np.logical_or.reduce(masks)))
        else:
            say(f"{name}: was submitted with nothing painted, left out")


def _painted(results: Sequence[dict[str, Any]], name: str) -> list[Mask]:
    """Decode brush regions; others are passed over, as ratings of the image, unless they outline something."""
    masks = []
    for result in results:
        value = result.get("value", {})
        if value.get("format") == "rle":
            if result.get("image_rotation"):
                raise ValueError(f"{name}: was turned in Label Studio; annotate it upright")
            shape = (int(result["original_height"]), int(result["original_width"]))
            masks.append(decode_brush(value["rle"], shape))
        elif result["type"] in {"polygonlabels", "rectanglelabels", "ellipselabels", "polygon", "rectangle", "ellipse"}:
            raise ValueError(f"{name}: holds a {result['type']} region; use the brush, or export as COCO")
    return masks


def _image_of(task: dict[str, Any]) -> str:
    """Give the image's path: below the root of local files, or in the address that it was loaded from."""
    address = task["data"].get("image") or next(v for v in task["data"].values() if isinstance(v, str))
    parts = urlsplit(address)
    path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0].replace("\\", "/")
    folder, _, file = path.rpartition("/")
    if folder.rstrip("/").startswith(("/data/upload", "data/upload")):
        return UPLOADED.sub("", file)
    return path


def coco_file(drafts: Iterable[Draft]) -> dict[str, Any]:
    """Give a COCO file: all images, and a compressed run length for each draft that is not empty."""
    images, annotations = [], []
    for number, draft in enumerate(drafts, start=1):
        height, width = draft.shape
        images.append({"id": number, "file_name": draft.name, "height": height, "width": width})
        if draft.mask is not None and draft.mask.any():
            runs = coco.encode(np.asfortranarray(draft.mask, np.uint8))
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": {"size": [height, width], "counts": runs["counts"].decode()},
                    "area": int(coco.area(runs)),
                    "bbox": coco.toBbox(runs).tolist(),
                    "iscrowd": 1,
                }
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": FOREGROUND}]}


def label_studio_tasks(drafts: Iterable[Draft], prefix: str) -> list[dict[str, Any]]:
    """Give tasks for Label Studio: all images, and a prediction for each draft that is not empty.

    They fit a labelling set-up with `<Image name="image" value="$image"/>` and
    `<BrushLabels name="tag" toName="image"><Label value="foreground"/></BrushLabels>`.

    Args:
        drafts: The images.
        prefix: What comes before an image's path in the address that Label Studio loads it from.
    """
    tasks: list[dict[str, Any]] = []
    for draft in drafts:
        task: dict[str, Any] = {"data": {"image": prefix + draft.name}}
        if draft.mask is not None and draft.mask.any():
            region = {
                "id": "draft",
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_height": draft.shape[0],
                "original_width": draft.shape[1],
                "image_rotation": 0,
                "value": {"format": "rle", "rle": encode_brush(draft.mask), "brushlabels": [FOREGROUND]},
            }
            task["predictions"] = [{"model_version": "alserve", "result": [region]}]
        tasks.append(task)
    return tasks
