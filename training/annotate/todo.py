"""What a person needs to draw masks: a draft of each, and one page that says what is to be done."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from alserve.arrays import Image
from alserve.drawing import overlay
from alserve.files import write_atomic
from alserve.geometry import resize
from alserve.images.codec import encode_jpeg, encode_png, to_grey
from alserve.measure.dataset import Sample, read_mask, stem
from alserve.predictor import load

PICTURE_SIDE = 480
"""Largest side of a picture in the page, in pixels."""


@dataclass(frozen=True)
class Task:
    """One image on the page."""

    name: str
    """As in the data set: path of its copy below images/."""
    stem: str
    """The name without its suffix."""
    height: int
    width: int
    pictures: dict[str, str]
    """JPEG as data URL, by caption."""


def write_drafts(wanted: Sequence[tuple[Sample, Path]], model: Path) -> None:
    """Write the model's masks of images, 0 and 255, at the images' own size; a file that is there is kept.

    Args:
        wanted: The images, each with the PNG to write.
        model: The model file.
    """
    predictor = load(model, device="cpu", threads=1)
    for sample, path in wanted:
        if not path.exists():
            (prediction,) = predictor.predict([sample.read()[0]])
            write_atomic(path, encode_png(to_grey(prediction.mask())))


def write_page(path: Path, wanted: Sequence[tuple[Sample, Path]]) -> None:
    """Write the list of the masks that are to be drawn: one HTML file, with nothing to load from elsewhere.

    Args:
        path: Where the page is to be; `images/`, `drafts/` and `masks/` are beside it.
        wanted: The images, each with the place of its draft, which need not be there.
    """
    environment = Environment(
        loader=PackageLoader("training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["url"] = lambda name: quote(os.fsencode(name))
    tasks = [_task(sample, draft) for sample, draft in wanted]
    page = environment.get_template("todo.html.jinja").render(tasks=tasks, folder=str(path.parent.absolute()))
    write_atomic(path, page.encode(errors="xmlcharrefreplace"))


def _task(sample: Sample, draft: Path) -> Task:
    image, _ = sample.read()
    pictures = {"Image": image}
    if draft.exists():
        mask = read_mask(draft)
        pictures["Draft"] = overlay(image, mask) if mask.shape == image.shape[:2] else image
    urls = {caption: _data_url(picture) for caption, picture in pictures.items()}
    return Task(sample.name, stem(sample.name), image.shape[0], image.shape[1], urls)


def _data_url(picture: Image) -> str:
    height, width = picture.shape[:2]
    scale = min(1.0, PICTURE_SIDE / max(height, width))
    small = resize(picture, (max(1, round(height * scale)), max(1, round(width * scale))))
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(small)).decode()}"
