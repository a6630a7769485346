"""Label Studio: tasks with predictions, and its JSON export with brush regions."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter

from alserve.arrays import Mask
from alserve.label_studio.brush import decode_brush, encode_brush
from alserve.terminal import say
from training.annotate.fields import Fields, Size, checked_name, checked_shape
from training.annotate.formats import FOREGROUND, FORMATS, Annotation, Draft, Format, Source

UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio sets before the name of an uploaded file."""


OUTLINES = frozenset({"polygonlabels", "rectanglelabels", "ellipselabels", "polygon", "rectangle", "ellipse"})
"""Label Studio's regions that outline something and are not the brush's."""

SETUP = f"""\
<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image">
    <Label value="{FOREGROUND}"/>
  </BrushLabels>
</View>"""
"""The labelling configuration that the tasks fit."""


class _Value(Fields):
    format: Any = None
    rle: Any = None


class _Result(Fields):
    type: str = ""
    image_rotation: float | None = None
    original_height: Size = 0
    original_width: Size = 0
    value: _Value | None = None


class _Finished(Fields):
    result: list[_Result]
    was_cancelled: bool | None = None
    updated_at: str | None = None


class _Task(Fields):
    data: dict[str, Any]
    annotations: list[_Finished]


_TASKS = TypeAdapter(list[_Task])


def read_label_studio(source: Source) -> Iterator[Annotation]:
    """Read Label Studio's JSON export, with brush regions: of each task the latest annotation."""
    for task in _TASKS.validate_python(source.content):
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
            shape = checked_shape(result.original_height, result.original_width)
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
    path = checked_name(parse_qs(parts.query).get("d", [unquote(parts.path)])[0])
    folder, _, file = path.rpartition("/")
    if folder.rstrip("/").startswith(("/data/upload", "data/upload")):
        return checked_name(UPLOADED.sub("", file))
    return path


def label_studio_tasks(drafts: Iterable[Draft], prefix: str) -> list[dict[str, Any]]:
    """Return tasks for Label Studio: all images, and a prediction for each draft that is not empty.

    They fit the labelling configuration `SETUP`.

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


def _recognize(source: Source) -> bool:
    return isinstance(source.content, list) and all(
        isinstance(task, dict) and {"data", "annotations"} <= task.keys() for task in source.content
    )


def _write(drafts: Sequence[Draft], prefix: str) -> bytes:
    return json.dumps(label_studio_tasks(drafts, prefix)).encode()


FORMATS.add("label-studio")(
    Format(
        description="Label Studio's export as 'JSON' (not 'JSON-MIN')",
        recognize=_recognize,
        read=read_label_studio,
        write=_write,
        setup=f"labelling configuration of the Label Studio project (Settings, Labeling Interface, Code):\n{SETUP}",
    )
)
