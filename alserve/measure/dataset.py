"""A data set of images with a class each, and a mask for those that have one; checked whole before any work starts."""

import csv
import gc
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypeVar
from unicodedata import category, normalize

from alserve.arrays import Image, Mask
from alserve.errors import DataError, ImageError
from alserve.images.codec import decode, decode_mask, read_bytes
from alserve.images.header import SUFFIXES
from alserve.measure.listing import Identity, Listing, describe_others, find_files
from alserve.parallel import ordered_map
from alserve.paths import printable
from alserve.runtime.device import available_cores
from alserve.terminal import say_once

SPLITS = ("train", "valid", "test")

Result = TypeVar("Result")

COLUMNS = ("image", "label", "mask", "split")
"""What a CSV may have; the first two it must."""


class ListedImage(NamedTuple):
    """One image as a folder or a line of a CSV names it."""

    name: str
    label: str
    mask: str | None
    split: str
    line: int = 0
    """Of the CSV, from 1."""


@dataclass(frozen=True)
class Sample:
    """One image of a data set."""

    name: str
    """Path below the data set's folder, with forward slashes."""
    image: Path
    label: int
    """Index into the data set's classes."""
    mask: Path | None
    split: str

    def read(self) -> tuple[Image, Mask | None]:
        """Read the image, uint8 [height, width, 3] RGB, and its mask, bool [height, width], if it has one.

        Raises:
            DataError: One of the files cannot be used, or their sizes differ.
        """
        image = _decode(decode, self.image)
        if self.mask is None:
            return image, None
        mask = read_mask(self.mask)
        if mask.shape != image.shape[:2]:
            raise DataError(
                f"{self.mask}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {self.image} has "
                f"{image.shape[1]} x {image.shape[0]}; they must be equal"
            )
        return image, mask


def read_mask(path: Path) -> Mask:
    """Read a mask of any size: bool [height, width].

    Raises:
        DataError: The file cannot be used.
    """
    return _decode(decode_mask, path)


def _decode(decoder: Callable[[bytes], Result], path: Path) -> Result:
    try:
        return decoder(read_bytes(path))
    except ImageError as error:
        raise DataError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Dataset:
    """All images of a data set, sorted by name."""

    source: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of one split: "train", "valid" or "test"."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def read_all(self) -> Iterator[tuple[Image, Mask | None]]:
        """Read every image and mask, in order, on all cores; done first, so that no run stops halfway at a bad file.

        Raises:
            DataError: A file cannot be used, or an image and its mask differ in size.
        """
        yield from ordered_map(Sample.read, self.samples, available_cores())

    def fingerprint(self) -> str:
        """Return a SHA-256 over names, classes, splits and the files' bytes: equal only for equal data."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for sample, contents in zip(self.samples, ordered_map(_digest, self.samples, available_cores()), strict=True):
            digest.update(repr((sample.name, sample.label, sample.split)).encode())
            digest.update(contents)
        return digest.hexdigest()


def _digest(sample: Sample) -> bytes:
    """Return the SHA-256 of an image's bytes, followed by that of its mask's where it has one."""
    paths = (path for path in (sample.image, sample.mask) if path is not None)
    return b"".join(hashlib.sha256(_decode(bytes, path)).digest() for path in paths)


@contextmanager
def _keeping_all() -> Iterator[None]:
    """Look for no garbage among objects that are all kept: for a million rows that takes as long as the rest."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_keeping_all()
def load_dataset(data: Path, masks: Path | None = None) -> Dataset:
    """Find the images of a data set and check that classes, masks and splits fit together.

    Args:
        data: A folder with a subfolder per class (below train/, valid/ and test/ if it is split), or a CSV with
            columns image, label and optionally mask and split, paths relative to the CSV.
        masks: A mirror of the images' folders that holds their masks, under the same names, of any image suffix.

    Returns:
        The data set; images without a split are in "train". What lies in its folders and is not read is named.

    Raises:
        DataError: Something is missing, double, empty or unreadable; a mask is one of the images; or two classes differ
            by case, spaces or Unicode form only.
    """
    if data.is_dir():
        rows = list(_folder_rows(data))
    elif data.is_file():
        rows = list(_csv_rows(data))
    else:
        raise DataError(f"{data}: no such folder or CSV file")
    if not rows:
        raise DataError(f"{data}: no images found; expected a subfolder per class with images in it")
    if masks is not None:
        rows = _attach_masks(rows, masks)
    root = data if data.is_dir() else data.parent
    _check_files(data, root, rows)
    numbers = check_classes(str(data), (row.label for row in rows))
    samples = tuple(
        Sample(row.name, root / row.name, numbers[row.label], Path(row.mask) if row.mask else None, row.split)
        for row in sorted(rows, key=attrgetter("name"))
    )
    return Dataset(data, tuple(numbers), samples)


def check_classes(where: str, labels: Iterable[str]) -> dict[str, int]:
    """Check that the names of classes can be told apart, and return the number of each, in order of the names.

    Args:
        where: What the labels stand in, for the message.
        labels: The label of every image.

    Raises:
        DataError: One has a control character or is no text, or two differ by case, spaces or Unicode form only.
    """
    classes = sorted(set(labels))
    alike: dict[str, str] = {}
    for label in classes:
        if printable(label) != label:
            raise DataError(
                f"{where}: class '{printable(label)}' has a control character, or is not in UTF-8; rename it"
            )
        key = " ".join("".join(c for c in normalize("NFKC", label).casefold() if category(c) != "Cf").split())
        if (other := alike.setdefault(key, label)) != label:
            raise DataError(
                f"{where}: classes '{other}' and '{label}' differ by case, spaces or Unicode form only; "
                "write them alike, or give one another name"
            )
    return {label: number for number, label in enumerate(classes)}


def _check_files(data: Path, root: Path, rows: Sequence[ListedImage]) -> None:
    """Check that images and masks are files, no image is there twice, and no mask is an image."""
    listing = Listing()

    def where(row: ListedImage) -> str:
        return f"line {row.line}: " if row.line else ""

    def identify(path: str, row: ListedImage) -> Identity:
        found = listing.find(path)
        if found is None:
            raise DataError(f"{data}: {where(row)}no such file, or no regular one: {path}")
        return found

    images: dict[Identity, ListedImage] = {}
    for row in rows:
        found = identify(os.path.join(root, row.name), row)  # noqa: PTH118  plain strings: there may be a million
        if (other := images.setdefault(found, row)) is not row:
            spelled = f", as {other.name} and as {row.name}" if other.name != row.name else ""
            raise DataError(f"{data}: {where(row)}image {other.name} is listed twice{spelled}; keep one of the lines")
    uses: dict[Identity, list[ListedImage]] = {}
    for row in rows:
        if row.mask:
            found = identify(row.mask, row)
            if image := images.get(found):
                whose = "its own image" if image is row else f"image {image.name}"
                raise DataError(f"{data}: {where(row)}the mask of {row.name} is {whose} ({row.mask}); name a mask")
            uses.setdefault(found, []).append(row)
    if several := [users for users in uses.values() if len(users) > 1]:
        first, second, *_ = several[0]
        say_once(
            f"{data}: {first.mask} is the mask of both {first.name} and {second.name} ({len(several)} such masks); "
            "give each image its own, unless that is meant"
        )


def stem(name: str) -> str:
    """Return an image's name without its suffix: what its mask is called."""
    return Path(name).with_suffix("").as_posix()


def find_pictures(folder: Path) -> dict[str, Path]:
    """Find all pictures below a folder, by their path in it without the suffix: how a mask finds its image.

    Raises:
        DataError: Two differ in their suffix only.
    """
    found: dict[str, Path] = {}
    for path in find_files(folder)[0]:
        name = stem(path.relative_to(folder).as_posix())
        if found.setdefault(name, path) != path:
            raise DataError(f"{path}: {found[name].name} lies beside it, a second mask of the same name; keep one")
    return found


def _folder_rows(data: Path) -> Iterator[ListedImage]:
    folders = _subfolders(data)
    names = {folder.name for folder in folders}
    if "train" in names and (unknown := names & {"val", "validation"}):
        raise DataError(f"{data / min(unknown)}: unknown split '{min(unknown)}'; use {', '.join(SPLITS)}")
    split = "train" in names and names <= set(SPLITS)
    others: Counter[str] = Counter()
    for place in folders if split else [data]:
        if loose := _images(place):
            raise DataError(f"{loose[0]}: this image has no label; put it into a folder named like its class")
        for folder in _subfolders(place):
            images, left_out = find_files(folder)
            others += left_out
            if not images:
                beside = f" ({describe_others(left_out.items())})" if left_out else ""
                raise DataError(f"{folder}: this class folder holds no images; add some, or remove the folder{beside}")
            for path in images:
                yield ListedImage(
                    path.relative_to(data).as_posix(), folder.name, None, place.name if split else "train"
                )
    if others:
        say_once(f"{data}: {describe_others(others.items())}")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """Find the images in a folder itself."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    return sorted(path for path in files if not path.name.startswith("."))


def _csv_rows(data: Path) -> Iterator[ListedImage]:
    try:
        with data.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            titles = next(lines, [])
            _check_titles(data, titles)
            columns = [titles.index(title) if title in titles else -1 for title in COLUMNS]
            for number, line in enumerate(lines, start=2):
                if line:
                    cells = [*line, *[""] * (len(titles) - len(line)), ""]  # cells that are not there are empty
                    yield _csv_row(data, number, [cells[column].strip() for column in columns])
    except (OSError, UnicodeDecodeError, csv.Error):
        raise DataError(f"{data}: cannot be read as a CSV file in UTF-8") from None


def _check_titles(data: Path, titles: Sequence[str]) -> None:
    if missing := {"image", "label"} - set(titles):
        raise DataError(
            f"{data}: the CSV has no column {' and no column '.join(sorted(missing))}; it needs image and label"
        )
    if double := [title for title in COLUMNS if titles.count(title) > 1]:
        raise DataError(f"{data}: the CSV has two columns {double[0]}; keep one")


def _csv_row(data: Path, number: int, cells: Sequence[str]) -> ListedImage:
    name, label, mask, split = cells
    if not name or not label:
        raise DataError(f"{data}: line {number}: {f'image {name} has no label' if name else 'no image is named'}")
    if split and split not in SPLITS:
        raise DataError(f"{data}: line {number}: unknown split '{split}'; use {', '.join(SPLITS)}")
    if "\\" in name or "//" in name or "/." in f"/{name}":
        name = Path(name).as_posix()
    return ListedImage(name, label, os.path.join(data.parent, mask) if mask else None, split or "train", number)  # noqa: PTH118


def _attach_masks(rows: list[ListedImage], masks: Path) -> list[ListedImage]:
    """Attach to every row the mask of the same name below `masks`; a mask that fits no image is an error."""
    if not masks.is_dir():
        raise DataError(f"{masks}: no such folder of masks")
    found = find_pictures(masks)
    if others := find_files(masks)[1]:
        say_once(f"{masks}: {describe_others(others.items())}")
    attached = [row._replace(mask=str(found.get(stem(row.name)) or row.mask or "") or None) for row in rows]
    used = {row.mask for row in attached}
    if orphans := [path for path in found.values() if str(path) not in used]:
        raise DataError(
            f"{orphans[0]}: this mask has no image of the same name ({len(orphans)} such masks); "
            "the folder of masks must mirror the images' folders"
        )
    if not found:
        raise DataError(f"{masks}: holds no masks")
    return attached
