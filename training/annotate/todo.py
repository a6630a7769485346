"""For a person who draws masks: drafts, and a page that lists the masks to draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from alserve.drawing import overlay
from alserve.files import write_atomic
from alserve.html import picture_url, write_filled
from alserve.images.codec import encode_png, to_grey
from alserve.measure.dataset import Sample, read_mask
from alserve.measure.folders import stem
from alserve.predictor import load


@dataclass(frozen=True)
class Task:
    """One image on the page."""

    name: str
    """As in the data set: path of its copy below images/."""
    stem: str
    """The name without its suffix."""
    height: int
    width: int
    pictures: dict[str, Markup]
    """Data URLs, by caption."""


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
    title = f"{len(wanted)} {'mask' if len(wanted) == 1 else 'masks'} to draw"
    tasks = [_task(sample, draft) for sample, draft in wanted]
    folder = str(path.parent.absolute())
    write_filled(path, "todo.html.jinja", package="training", title=title, tasks=tasks, folder=folder)


def _task(sample: Sample, draft: Path) -> Task:
    image, _ = sample.read()
    pictures = {"Image": image}
    if draft.exists():
        mask = read_mask(draft)
        pictures["Draft"] = overlay(image, mask) if mask.shape == image.shape[:2] else image
    urls = {caption: picture_url(picture) for caption, picture in pictures.items()}
    return Task(sample.name, stem(sample.name), image.shape[0], image.shape[1], urls)
