"""Masks as annotation programs keep them: pictures, COCO files, Label Studio's JSON."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from alserve.arrays import Mask
from alserve.errors import DataError
from alserve.images.header import MAX_PIXELS
from alserve.measure.dataset import find_pictures, read_mask
from alserve.outputs.rle import encode_rle
from alserve.terminal import say
from training.annotate.coco import decode_regions
from training.annotate.label_studio import decode_brush, encode_brush
from training.annotate.oracle import check_drawn, check_one_sided

FOREGROUND = "foreground"
"""The one label of drafts."""

UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio sets before the name of an uploaded file."""


OUTLINES = frozenset({"polygonlabels", "rectanglelabels", "ellipselabels", "polygon", "rectangle", "ellipse"})
"""Label Studio's regions that outline something and are not the brush's."""


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


class _Read(BaseModel):
    """Part of a JSON file: the fields that are read, each of its type; others are passed over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


Size = Annotated[int, Field(strict=False)]
"""480.0 is taken for 480."""


class _CocoImage(_Read):
    id: int | str
    file_name: str
    height: Size
    width: Size


class _CocoAnnotation(_Read):
    image_id: int | str
    segmentation: Any


class _Coco(_Read):
    images: list[_CocoImage]
    annotations: list[_CocoAnnotation]


class _Value(_Read):
    format: Any = None
    rle: Any = None


class _Result(_Read):
    type: str = ""
    image_rotation: float | None = None
    original_height: Size = 0
    original_width: Size = 0
    value: _Value | None = None


class _Finished(_Read):
    result: list[_Result]
    was_cancelled: bool | None = None
    updated_at: str | None = None


class _Task(_Read):
    data: dict[str, Any]
    annotations: list[_Finished]


_TASKS = TypeAdapter(list[_Task])


def read_annotations(source: Path) -> Iterator[Annotation]:
    """Read the masks that an annotation program wrote.

    Args:
        source: A folder of mask pictures; a COCO file, with polygons or run lengths; or Label Studio's JSON export,
            with brush regions.

    Yields:
        One annotation an image; all regions of an image are its foreground, whatever their label. Images without any
        region are left out of a COCO file, which does not tell whether they were looked at.

    Raises:
        DataError: It is none of these, or a mask in it cannot be decoded; or a picture is a photograph, see
            `training.annotate.oracle.check_drawn`.
    """
    if source.is_dir():
        yield from _read_pictures(source)
        return
    if not source.is_file():
        raise DataError(f"{source}: no such file or folder")
    try:
        content = json.loads(source.read_bytes())
    except (ValueError, RecursionError):
        raise DataError(f"{source}: is no JSON file, or ends too early; export it again") from None
    try:
        if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
            yield from _read_coco(_Coco.model_validate(content))
        elif isinstance(content, list) and all(
            isinstance(task, dict) and {"data", "annotations"} <= task.keys() for task in content
        ):
            yield from _read_label_studio(_TASKS.validate_python(content))
        else:
            raise DataError(f"{source}: is neither a COCO file nor Label Studio's export as 'JSON' (not 'JSON-MIN')")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{source}: a mask cannot be read ({place}: {first['msg']}); export it again") from None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{source}: a mask cannot be read ({_reason(error)})") from None


def _checked_name(name: str) -> str:
    """Return an image's name, with forward slashes, if it ends in one."""
    name = name.replace("\\", "/")
    if name.rpartition("/")[2] in {"", ".", ".."}:
        raise ValueError(f"'{name}' names no image")
    return name


def _checked_shape(height: int, width: int) -> tuple[int, int]:
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"an image is said to have {width} x {height} pixels")
    return height, width


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _read_pictures(folder: Path) -> Iterator[Annotation]:
    for name, path in find_pictures(folder).items():
        mask = read_mask(path)
        check_drawn(path, mask, folder, name)
        if mask.all():
            check_one_sided(path, mask, folder, name)
        yield Annotation(path.relative_to(folder).as_posix(), mask)


def _read_coco(content: _Coco) -> Iterator[Annotation]:
    regions: dict[int | str, list[Any]] = {image.id: [] for image in content.images}
    if len(regions) < len(content.images):
        raise ValueError("two images have the same id")
    for annotation in content.annotations:
        if annotation.image_id not in regions:
            raise ValueError(f"there is no image with id {annotation.image_id}")
        regions[annotation.image_id].append(annotation.segmentation)
    for image in content.images:
        name = _checked_name(image.file_name)
        shape = _checked_shape(image.height, image.width)
        if not regions[image.id]:
            continue
        try:
            mask = decode_regions(regions[image.id], shape)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{name}: {error}") from None
        yield Annotation(name, mask)


def _read_label_studio(tasks: Sequence[_Task]) -> Iterator[Annotation]:
    for task in tasks:
        finished = [annotation for annotation in task.annotations if not annotation.was_cancelled]
        if not task.annotations:
            continue
        name = _image_of(task)
        if not finished:
            yield Annotation(name, None)
            continue
        latest = max(finished, key=lambda annotation: annotation.updated_at or "")
        mask = _painted(latest.result, name)
        if mask is None:
            say(f"{name}: was submitted with nothing painted, left out")
        else:
            yield Annotation(name, mask)


def _painted(results: Sequence[_Result], name: str) -> Mask | None:
    """Decode and join brush regions; others are passed over, as ratings of the image, unless they outline something."""
    painted: Mask | None = None
    for result in results:
        if result.value is not None and result.value.format == "rle":
            if result.image_rotation:
                raise ValueError(f"{name}: was turned in Label Studio; annotate it upright")
            shape = _checked_shape(result.original_height, result.original_width)
            if not isinstance(result.value.rle, list):
                raise ValueError(f"{name}: its brush is no list of bytes")
            mask = decode_brush(bytes(result.value.rle), shape)
            if painted is None:
                painted = mask.copy()
            elif painted.shape == shape:
                painted |= mask
            else:
                raise ValueError(f"{name}: its regions are of images of different sizes")
        elif result.type in OUTLINES:
            raise ValueError(f"{name}: holds a {result.type} region; use the brush, or export as COCO")
    return painted


def _image_of(task: _Task) -> str:
    """Return the image's path: below the root of local files, or in the address that it was loaded from."""
    addresses = [task.data.get("image"), *task.data.values()]
    address = next((address for address in addresses if isinstance(address, str)), None)
    if address is None:
        raise ValueError("a task names no image")
    parts = urlsplit(address)
    path = _checked_name(parse_qs(parts.query).get("d", [unquote(parts.path)])[0])
    folder, _, file = path.rpartition("/")
    if folder.rstrip("/").startswith(("/data/upload", "data/upload")):
        return _checked_name(UPLOADED.sub("", file))
    return path


def coco_file(drafts: Iterable[Draft]) -> dict[str, Any]:
    """Return a COCO file: all images, and a compressed run length for each draft that is not empty."""
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
    """Return tasks for Label Studio: all images, and a prediction for each draft that is not empty.

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
