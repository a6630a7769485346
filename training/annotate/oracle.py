"""Where the masks that are asked for come from: the data set, or a person who draws them."""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from alserve.arrays import Mask
from alserve.errors import AlserveError, DataError, ImageError
from alserve.files import write_atomic
from alserve.images.codec import Levels, decode_levels, read_bytes
from alserve.measure.dataset import Dataset, Sample, find_pictures, stem
from alserve.paths import below, check_name
from alserve.terminal import say, say_once
from training.annotate.todo import write_drafts, write_page
from training.settings import Settings

JPEG = b"\xff\xd8\xff"
"""How a JPEG file begins, whatever its name."""

NEARLY_ALL, MOST_LEVELS = 0.99, 16
"""A picture with a larger share of pixels that are not black, and of more levels, is taken for a photograph."""

INVERTED_BORDER, INVERTED_SHARE = 0.95, 0.5
"""A mask with more foreground along the image's border, and in all, is taken for one of the background."""

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


def is_marked(masks: Path, name: str, kind: str) -> bool:
    """Tell whether a person left the file NAME.KIND (skip, empty, full) beside the masks; some editors add .txt."""
    return any((masks / f"{name}.{kind}{suffix}").exists() for suffix in ("", ".txt"))


def check_drawn(path: Path, mask: Mask, masks: Path, name: str) -> None:
    """Refuse what is no drawn mask: a JPEG, a photograph, in which hardly a pixel is black, or an inverted mask.

    Args:
        path: The picture.
        mask: What was read from it, bool [height, width].
        masks: Folder in which NAME.full confirms a mask with so much foreground.
        name: NAME, with the folders below `masks`.

    Raises:
        DataError: Says what to do.
    """
    with path.open("rb") as file:
        if file.read(len(JPEG)) == JPEG:
            raise DataError(f"{path}: a JPEG blurs the outline; save the mask as PNG")
    levels = _levels(path)
    drawn = float((levels > 0).mean())
    if drawn > NEARLY_ALL and not is_marked(masks, name, "full") and len(np.unique(levels)) > MOST_LEVELS:
        raise DataError(
            f"{path}: {100 * drawn:.1f} % of it are not black, as in a photograph; draw the mask on black, or if "
            f"that is right, put an empty file {path.with_suffix('.full').name} beside it"
        )
    if looks_inverted(mask) and not is_marked(masks, name, "full"):
        raise DataError(
            f"{path}: {100 * mask.mean():.0f} % of it and nearly all of its border are foreground, as where the "
            "background was painted; invert it, or if that is right, put an empty file "
            f"{path.with_suffix('.full').name} beside it"
        )


def looks_inverted(mask: Mask) -> bool:
    """Tell a mask in which the background was probably painted, and the objects were left out.

    Objects seldom fill an image up to its border on all sides: a mask is taken for inverted where more than
    `INVERTED_BORDER` of the pixels along the image's border are foreground, and more than `INVERTED_SHARE` of all, but
    not all.

    Args:
        mask: bool [height, width].
    """
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return bool(border.mean() > INVERTED_BORDER and mask.mean() > INVERTED_SHARE and not mask.all())


def _levels(path: Path) -> Levels:
    try:
        return decode_levels(read_bytes(path))
    except ImageError as error:
        raise DataError(f"{path}: {error}") from None


def check_one_sided(path: Path, mask: Mask, masks: Path, name: str) -> None:
    """Refuse a mask without foreground or background that no file NAME.empty or NAME.full confirms; see `check_drawn`.

    Raises:
        DataError: Says what to do.
    """
    for kind, side, fault in (("empty", "foreground", not mask.any()), ("full", "background", mask.all())):
        if fault and not is_marked(masks, name, kind):
            raise DataError(
                f"{path}: has no {side}; draw it, or if that is right, put an empty file "
                f"{path.with_suffix(f'.{kind}').name} beside it"
            )


def check_mirrored(name: str, data: Path) -> None:
    """Refuse a data set's image whose name cannot be used below another folder.

    Raises:
        DataError: Says which, and what to do.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(
            f"{data}: image {name} lies outside the CSV's folder, which cannot be mirrored; "
            "put the CSV above its images"
        )
    check_name(name, data)


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
        if dataset.source.is_dir() and self.folder.resolve().is_relative_to(dataset.source.resolve()):
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
        answers: list[Mask | NoMask] = []
        faults: list[str] = []
        for sample in samples:
            try:
                answers.append(self.answer(sample, found.get(stem(sample.name))))
            except AlserveError as error:
                faults.append(str(error))
        if faults:
            more = f"; and {len(faults) - MOST_SAID} more" if len(faults) > MOST_SAID else ""
            raise DataError("; ".join(faults[:MOST_SAID]) + more)
        return answers

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
