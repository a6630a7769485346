"""Masks as annotation programs keep them: pictures, COCO files, Label Studio's JSON."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from alserve.errors import DataError
from alserve.header import MAX_PIXELS
from alserve.terminal import say
from alserve.web.rle import encode_rle
from training.brush import decode_brush, encode_brush
from training.coco import decode_region
from training.dataset import Mask, find_pictures, read_mask

FOREGROUND = "foreground"
"""The one label of drafts."""

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


def _checked_shape(height: Any, width: Any) -> tuple[int, int]:  # noqa: ANN401  whatever the JSON holds
    shape = int(height), int(width)
    if min(shape) < 1 or shape[0] * shape[1] > MAX_PIXELS:
        raise ValueError(f"an image is said to have {width} x {height} pixels")
    return shape


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
        shape = _checked_shape(image["height"], image["width"])
        name = image["file_name"].replace("\\", "/")
        try:
            masks = [decode_region(region, shape) for region in regions.pop(image["id"], ())]
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{name}: {error}") from None
        if masks:
            yield Annotation(name, np.asarray(np.logical_or.reduce(masks)))
    if regions:
        raise ValueError(f"there is no image with id {next(iter(regions))}")


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
            shape = _checked_shape(result["original_height"], result["original_width"])
            masks.append(decode_brush(value["rle"], shape))
        elif result["type"] in {"polygonlabels", "rectanglelabels", "ellipselabels", "polygon", "rectangle", "ellipse"}:
            raise ValueError(f"{name}: holds a {result['type']} region; use the brush, or export as COCO")
    return masks


def _image_of(task: dict[str, Any]) -> str:
    """Give the image's path: below the root of local files, or in the address that it was loaded from."""
    addresses = [task["data"].get("image"), *task["data"].values()]
    address = next((address for address in addresses if isinstance(address, str)), None)
    if address is None:
        raise ValueError("a task names no image")
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
            rows, columns = (np.flatnonzero(draft.mask.any(axis=axis)) for axis in (1, 0))
            top, left = int(rows[0]), int(columns[0])
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": encode_rle(draft.mask),
                    "area": int(draft.mask.sum()),
                    "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
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
