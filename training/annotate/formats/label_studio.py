"""Label Studio: tasks with predictions, and its JSON export with brush regions and polygons."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from pydantic import Field, TypeAdapter

from alserve.arrays import Mask
from alserve.label_studio.brush import decode_brush
from alserve.label_studio.config import MODEL, SETUP, read_config
from alserve.label_studio.regions import mask_regions
from alserve.terminal import say
from training.annotate.canvas import Canvas, checked_ring
from training.annotate.fields import Fields, Size, checked_name, checked_shape
from training.annotate.formats import FOREGROUND, FORMATS, Annotation, Draft, Format, Source

UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio sets before the name of an uploaded file."""


OUTLINES = frozenset({"rectanglelabels", "ellipselabels", "rectangle", "ellipse"})
"""Label Studio's regions that outline something, and are neither the brush's nor polygons."""


class _Value(Fields):
    format: Any = None
    rle: Any = None
    points: Any = None
    brushlabels: list[str] = Field(default_factory=list)
    polygonlabels: list[str] = Field(default_factory=list)
    choices: Any = None


class _Result(Fields):
    type: str = ""
    image_rotation: float | None = None
    original_height: Size = 0
    original_width: Size = 0
    value: _Value | None = None


class Submitted(Fields):
    """An annotation of a task."""

    result: list[_Result]
    was_cancelled: bool | None = None
    updated_at: str | None = None
    completed_by: Any = None
    """The person: a number, or all that is known of them, with it; see `person`."""

    @property
    def person(self) -> str:
        """Who submitted it; what else is known of a person may differ from one answer to the next."""
        known = self.completed_by
        return str(known.get("id") if isinstance(known, dict) else known)

    def mask(self) -> Mask | None:
        """Decode and join its regions; None where nothing was painted.

        Others are passed over, as ratings of the image, unless they outline something.

        Raises:
            ValueError, TypeError, OverflowError: A region cannot be read.
        """
        painted: Mask | None = None
        for result in self.result:
            mask = _region(result)
            if mask is None:
                continue
            if painted is None:
                painted = mask.copy()
            elif painted.shape == mask.shape:
                painted |= mask
            else:
                raise ValueError("its regions are of images of different sizes")
        return painted

    @property
    def submitted_at(self) -> str:
        """When it was submitted or last changed, so that a later time sorts behind an earlier one."""
        return (self.updated_at or "").rstrip("Z")

    @property
    def labels(self) -> set[str]:
        """The labels of its regions."""
        values = [result.value for result in self.result if result.value]
        return {label for value in values for label in (*value.brushlabels, *value.polygonlabels)}

    @property
    def choices(self) -> set[str]:
        """What was chosen for the image."""
        lists = [result.value.choices for result in self.result if result.value]
        return {choice for chosen in lists if isinstance(chosen, list) for choice in chosen if isinstance(choice, str)}


class Task(Fields):
    """An image with its annotations."""

    data: dict[str, Any]
    annotations: list[Submitted]

    @property
    def submitted(self) -> list[Submitted]:
        """The annotations of those who did not skip it, the latest last."""
        kept = [annotation for annotation in self.annotations if not annotation.was_cancelled]
        return sorted(kept, key=lambda annotation: annotation.submitted_at)


_TASKS = TypeAdapter(list[Task])


def read_label_studio(source: Source) -> Iterator[Annotation]:
    """Read Label Studio's JSON export, with brush regions and polygons: of each task the latest annotation."""
    for task in _TASKS.validate_python(source.content):
        if not task.annotations:
            continue
        name = _image_of(task)
        if not task.submitted:
            yield Annotation(name, None)
            continue
        try:
            mask = task.submitted[-1].mask()
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{name}: {error}") from None
        if mask is None:
            say(f"{name}: was submitted with nothing painted, left out")
        else:
            yield Annotation(name, mask)


def _region(result: _Result) -> Mask | None:
    """Decode a brush region or a polygon; None of what paints nothing."""
    value = result.value
    is_brush = value is not None and value.format == "rle"
    is_polygon = value is not None and value.points is not None
    if value is None or not (is_brush or is_polygon):
        if result.type in OUTLINES or result.type.startswith("polygon"):
            raise ValueError(f"holds a {result.type} region; use the brush or polygons, or export as COCO")
        return None
    if result.image_rotation:
        raise ValueError("was turned in Label Studio; annotate it upright")
    shape = checked_shape(result.original_height, result.original_width)
    if is_brush:
        if not isinstance(value.rle, list):
            raise ValueError("its brush is no list of bytes")
        return decode_brush(bytes(value.rle), shape)
    corners = np.asarray(value.points, np.float64) * (shape[1] / 100, shape[0] / 100)  # they are in percent
    canvas = Canvas(shape)
    canvas.fill([checked_ring(corners, shape)], FOREGROUND)
    return canvas.mask


def _image_of(task: Task) -> str:
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
            (control,) = read_config(SETUP)
            regions = mask_regions(control, FOREGROUND, draft.mask)
            task["predictions"] = [{"model_version": MODEL, "result": regions}]
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
