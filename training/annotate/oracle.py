"""Where the masks that are asked for come from: the data set, or a person who draws them."""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path, PurePosixPath
from typing import Protocol

from alserve.arrays import Mask
from alserve.errors import AlserveError, DataError
from alserve.files import write_atomic
from alserve.images.codec import read_bytes
from alserve.measure.dataset import Dataset, Sample
from alserve.measure.folders import find_pictures, stem
from alserve.paths import below
from alserve.terminal import say, say_once
from training.annotate.checks import check_drawn, check_mirrored, check_one_sided, is_marked, looks_inverted
from training.annotate.todo import write_drafts, write_page
from training.settings import Settings

MOST_SAID = 4
"""Largest number of faulty masks in one message."""

_DECORATION = re.compile(
    r"\.(?:png|jpe?g|tiff?|bmp|webp)$|^(?:mask|draft|label|annotation)[ _.-]+|[ _.-]+(?:mask|draft|label|annotation)$"
)
"""What programs and people add to the name of an image when they save its mask."""


class NoMask(Enum):
    """Why there is no mask."""

    YET = auto()
    """It is still to be drawn."""
    EVER = auto()
    """The image was skipped."""


class Oracle(Protocol):
    """Somebody who can draw masks."""

    def check(self, dataset: Dataset, settings: Settings) -> None:
        """Refuse, with a `DataError`, what this oracle cannot do on this data set."""

    def can_answer(self, sample: Sample) -> bool:
        """Tell whether this image's mask can be had."""
        ...

    def ask(self, samples: Sequence[Sample]) -> Sequence[Mask | NoMask]:
        """Return the masks of these images: bool [height, width] each, of the image's own size.

        Raises:
            DataError: A mask is there and cannot be used.
        """
        ...

    def request(self, samples: Sequence[Sample], model: Path | None) -> bool:
        """Have the masks drawn that `ask` did not give yet.

        Args:
            samples: Their images; none when nothing is left to draw.
            model: The present model file, for drafts; None before there is one.

        Returns:
            Whether they were drawn meanwhile; else `ask` gives them when the run is started again.
        """
        ...

    def end(self, report: Path | None) -> None:
        """Leave: the run has ended.

        Args:
            report: What it learned; None where it was stopped.
        """


def classes_to_ask_for(dataset: Dataset, settings: Settings) -> list[tuple[int, str]]:
    """Return index and name of the classes whose masks are asked for: those that are not said to be empty."""
    return [(label, dataset.classes[label]) for label in settings.with_foreground(dataset.classes)]


def check_person(dataset: Dataset, settings: Settings) -> None:
    """Refuse methods that a person who draws has no part in, and a budget larger than the images.

    Raises:
        DataError: Says what to do.
    """
    if settings.without_masks:
        raise DataError(f"--method {settings.method} asks for no masks; leave --oracle out")
    if settings.all_masks_at_once:
        raise DataError("--method all-masks learns from all masks at once; draw them, and name them with --masks")
    if settings.uses_validation_masks:
        raise DataError(
            "--validation-masks takes the data set's masks, not a person's; leave it out, and the threshold is one half"
        )
    wanted = sum(settings.schedule)
    for label, name in classes_to_ask_for(dataset, settings):
        images = sum(sample.label == label for sample in dataset.split("train"))
        if images < wanted:
            raise DataError(
                f"{dataset.source}: class {name} has {images} training images, but the budget is {wanted} "
                "masks a class; ask for less (--initial, --per-round, --rounds)"
            )


def answers_for(samples: Sequence[Sample], answer: Callable[[Sample], Mask | NoMask]) -> list[Mask | NoMask]:
    """Return the answer for each image.

    Args:
        samples: The images.
        answer: Returns one of them; an `AlserveError` that it raises keeps no other from being looked at.

    Raises:
        DataError: Some masks cannot be used; names `MOST_SAID` of them, and counts the others.
    """
    answers: list[Mask | NoMask] = []
    faults: list[str] = []
    for sample in samples:
        try:
            answers.append(answer(sample))
        except AlserveError as error:
            faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - MOST_SAID} more" if len(faults) > MOST_SAID else ""
        raise DataError("; ".join(faults[:MOST_SAID]) + more)
    return answers


class SimulatedOracle:
    """Answers from masks that were drawn before."""

    def check(self, dataset: Dataset, settings: Settings) -> None:
        """Refuse a budget that is larger than the masks there are."""
        wanted = max(sum(settings.schedule), int(settings.all_masks_at_once))
        for label, name in classes_to_ask_for(dataset, settings):
            masks = sum(sample.mask is not None for sample in dataset.split("train") if sample.label == label)
            if masks < wanted:
                raise DataError(
                    f"{dataset.source}: class {name} has {masks} training images with a mask, but the budget is "
                    f"{wanted} a class; ask for less (--initial, --per-round, --rounds), give more masks (--masks), "
                    "or draw them while it learns (--oracle browser)"
                )
        if settings.uses_validation_masks:
            asked = {label for label, _ in classes_to_ask_for(dataset, settings)}
            valid = [sample for sample in dataset.split("valid") if sample.label in asked]
            if not valid or any(sample.mask is None for sample in valid):
                raise DataError(
                    f"{dataset.source}: --validation-masks needs a mask for every image of split 'valid', and some"
                )

    def can_answer(self, sample: Sample) -> bool:
        """Tell whether the data set has a mask for this image."""
        return sample.mask is not None

    def ask(self, samples: Sequence[Sample]) -> list[Mask | NoMask]:
        """Read the masks from the data set."""
        masks = [sample.read()[1] for sample in samples]
        drawn = [looks_inverted(mask) for mask in masks if mask is not None]
        if sum(drawn) > len(drawn) / 2:
            say_once(
                "most of the data set's masks are foreground along nearly all of the image's border, as where the "
                "background was painted; if they are inverted, foreground has to be what the model is to find"
            )
        return [NoMask.EVER if mask is None else mask for mask in masks]

    def request(self, samples: Sequence[Sample], model: Path | None) -> bool:  # noqa: ARG002
        """Do nothing: all masks are there."""
        return False

    def end(self, report: Path | None) -> None:
        """Do nothing."""


class FolderOracle:
    """A person, who draws masks with any program, in a folder.

    `todo.html` lists what is to be drawn; `images/` holds copies of these images, `drafts/` the present model's masks
    of them, once there is a model: a class activation map, which is all there is before, is too coarse to correct.
    What the person saves is in `masks/` and is only ever read: NAME.png the mask, or an empty file NAME.skip where the
    image cannot be drawn. NAME.empty confirms a mask without any foreground, NAME.full one that is foreground
    everywhere or all along the image's border. All mirror the data set's folders. What lies in the folder already is
    never replaced.

    Args:
        folder: Made when the first masks are wanted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.masks = folder / "masks"
        self._warned = False

    def check(self, dataset: Dataset, settings: Settings) -> None:
        """Refuse methods that a person has no part in, a budget larger than the images, and names that clash."""
        check_person(dataset, settings)
        data = Path(dataset.source)
        if data.is_dir() and self.folder.resolve().is_relative_to(data.resolve()):
            raise DataError(f"{self.folder}: lies in the data set, where it would be taken for a class; name another")
        seen: dict[str, str] = {}
        for sample in dataset.split("train"):
            check_mirrored(sample.name, dataset.source)
            if (other := seen.setdefault(stem(sample.name), sample.name)) != sample.name:
                raise DataError(
                    f"{dataset.source}: {other} and {sample.name} would share one mask; give one another name"
                )

    def can_answer(self, sample: Sample) -> bool:
        """Tell whether the person did not skip this image."""
        return not is_marked(self.masks, stem(sample.name), "skip")

    def ask(self, samples: Sequence[Sample]) -> list[Mask | NoMask]:
        """Read what was drawn so far; a mask that was not asked for is named, once, and left alone."""
        found = find_pictures(self.masks)
        if samples and not self._warned:
            self._warn_of_strays(found, {stem(sample.name) for sample in samples})
        return answers_for(samples, lambda sample: self.answer(sample, found.get(stem(sample.name))))

    def request(self, samples: Sequence[Sample], model: Path | None) -> bool:
        """Leave images, drafts and the list of what is to be drawn, and say so."""
        page = self.folder / "todo.html"
        if not samples:
            page.unlink(missing_ok=True)
            return False
        write_page(page, self.lay_out(samples, model))
        count = "1 mask" if len(samples) == 1 else f"{len(samples)} masks"
        say(
            f"{count} to draw: open {page}, save them in {self.masks}, or draw them in the browser with "
            f"'alserve annotate {shlex.quote(str(self.folder))}'; then run the same command again"
        )
        return False

    def lay_out(self, samples: Sequence[Sample], model: Path | None) -> list[tuple[Sample, Path]]:
        """Leave images and drafts, and folders for their masks.

        Returns:
            The images, each with the place of its draft.
        """
        wanted = [(sample, below(self.folder / "drafts", f"{stem(sample.name)}.png")) for sample in samples]
        for sample in samples:
            copy = below(self.folder / "images", sample.name)
            if not copy.exists():
                write_atomic(copy, read_bytes(sample.image))
            below(self.masks, sample.name).parent.mkdir(parents=True, exist_ok=True)
        if model:
            write_drafts(wanted, model)
        return wanted

    def end(self, report: Path | None) -> None:
        """Do nothing: the person has the folder."""

    def answer(self, sample: Sample, path: Path | None) -> Mask | NoMask:
        """Read what was drawn of one image.

        Args:
            sample: The image.
            path: Its mask, if there is one.

        Raises:
            DataError: The mask cannot be used.
        """
        skipped = is_marked(self.masks, stem(sample.name), "skip")
        if path is None:
            return NoMask.EVER if skipped else NoMask.YET
        if skipped:
            raise DataError(f"{path}: the image is marked as skipped as well; remove the mask or the .skip file")
        mask = replace(sample, mask=path).read()[1]
        if mask is None:
            raise DataError(f"{path}: the mask is gone; draw it again")
        check_drawn(path, mask, self.masks, stem(sample.name))
        check_one_sided(path, mask, self.masks, stem(sample.name))
        return mask

    def _warn_of_strays(self, found: dict[str, Path], asked: set[str]) -> None:
        self._warned = True
        strays = {name: path for name, path in found.items() if name not in asked}
        missing = asked - found.keys()
        near = {name: expected for name in strays if (expected := nearest_name(name, missing))}
        for name, expected in list(near.items())[:MOST_SAID]:
            say(f"found {strays[name]}; expected {self.masks / f'{expected}.png'}: rename it")
        others = [str(path) for name, path in strays.items() if name not in near]
        if others:
            more = f" and {len(others) - MOST_SAID} more" if len(others) > MOST_SAID else ""
            say(f"{', '.join(others[:MOST_SAID])}{more}: not asked for by now, left alone")


def nearest_name(name: str, wanted: Iterable[str]) -> str | None:
    """Return which image a mask was probably drawn for, that was saved under another name.

    Args:
        name: Path of the mask without its suffix.
        wanted: Paths of the images without theirs.

    Returns:
        The one whose file name is the same but for case and words such as "mask"; of several, that of the same folder;
        None where there is none, or still several.
    """
    alike = [other for other in sorted(wanted) if _plain(other) == _plain(name)]
    folder = PurePosixPath(name.casefold()).parent
    beside = [other for other in alike if PurePosixPath(other.casefold()).parent == folder]
    best = beside or alike
    return best[0] if len(best) == 1 else None


def _plain(name: str) -> str:
    """Return a file name in lower case, without what was added to it."""
    plain = PurePosixPath(name).name.casefold()
    while (shorter := _DECORATION.sub("", plain)) != plain:
        plain = shorter
    return plain
