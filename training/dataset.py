"""A data set of images with a class each, and a mask for those that have one; checked whole before any work starts."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from alserve.device import available_cores
from alserve.errors import DataError, ImageError
from alserve.header import SUFFIXES
from alserve.imageio import decode, decode_mask, read_bytes

SPLITS = ("train", "valid", "test")

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Row = tuple[str, str, Path | None, str]  # name, class, mask, split

Result = TypeVar("Result")


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
        """Give the samples of one split: "train", "valid" or "test"."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def read_all(self) -> Iterator[tuple[Image, Mask | None]]:
        """Read every image and mask, in order, on all cores; done first, so that no run stops halfway at a bad file.

        Raises:
            DataError: A file cannot be used, or an image and its mask differ in size.
        """
        with ThreadPoolExecutor(available_cores()) as pool:
            yield from pool.map(Sample.read, self.samples)

    def fingerprint(self) -> str:
        """Give a SHA-256 over names, classes, splits and the files' bytes: equal only for equal data."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for sample in self.samples:
            digest.update(repr((sample.name, sample.label, sample.split)).encode())
            for path in (sample.image, sample.mask):
                if path is not None:
                    digest.update(hashlib.sha256(_decode(bytes, path)).digest())
        return digest.hexdigest()


def load_dataset(data: Path, masks: Path | None = None) -> Dataset:
    """Find the images of a data set and check that classes, masks and splits fit together.

    Args:
        data: A folder with a subfolder per class (below train/, valid/ and test/ if it is split), or a CSV with
            columns image, label and optionally mask and split, paths relative to the CSV.
        masks: A mirror of the images' folders that holds their masks, under the same names, of any image suffix.

    Returns:
        The data set; images without a split are in "train".

    Raises:
        DataError: Something is missing, double, empty or unreadable.
    """
    if data.is_dir():
        rows = list(_folder_rows(data))
    elif data.is_file():
        rows = list(_csv_rows(data))
    else:
        raise DataError(f"{data}: no such folder or CSV file")
    if not rows:
        raise DataError(f"{data}: no images found; expected a subfolder per class with images in it")
    root = data if data.is_dir() else data.parent
    if masks is not None:
        rows = _attach_masks(rows, masks)
    names = [row[0] for row in rows]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{data}: image {double} is listed twice; keep one of the lines")
    classes = tuple(sorted({label for _, label, _, _ in rows}))
    samples = tuple(
        Sample(name, root / name, classes.index(label), mask, split)
        for name, label, mask, split in sorted(rows, key=_name)
    )
    return Dataset(data, classes, samples)


def stem(name: str) -> str:
    """Give an image's name without its suffix: what its mask is called."""
    return Path(name).with_suffix("").as_posix()


def find_pictures(folder: Path) -> dict[str, Path]:
    """Find all pictures below a folder, by their path in it without the suffix: how a mask finds its image.

    Raises:
        DataError: Two differ in their suffix only.
    """
    found: dict[str, Path] = {}
    for path in _images(folder.rglob("*")):
        name = stem(path.relative_to(folder).as_posix())
        if found.setdefault(name, path) != path:
            raise DataError(f"{path}: {found[name].name} lies beside it, a second mask of the same name; keep one")
    return found


def _name(row: Row) -> str:
    return row[0]


def _folder_rows(data: Path) -> Iterator[Row]:
    folders = _subfolders(data)
    names = {folder.name for folder in folders}
    if "train" in names and (unknown := names & {"val", "validation"}):
        raise DataError(f"{data / min(unknown)}: unknown split '{min(unknown)}'; use {', '.join(SPLITS)}")
    split = "train" in names and names <= set(SPLITS)
    for place in folders if split else [data]:
        if loose := _images(place.glob("*")):
            raise DataError(f"{loose[0]}: this image has no label; put it into a folder named like its class")
        for folder in _subfolders(place):
            if not (images := _images(folder.rglob("*"))):
                raise DataError(f"{folder}: this class folder holds no images; add some, or remove the folder")
            for path in images:
                yield path.relative_to(data).as_posix(), folder.name, None, place.name if split else "train"


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith("."))


def _csv_rows(data: Path) -> Iterator[Row]:
    try:
        with data.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error):
        raise DataError(f"{data}: cannot be read as a CSV file in UTF-8") from None
    if missing := {"image", "label"} - columns:
        raise DataError(
            f"{data}: the CSV has no column {' and no column '.join(sorted(missing))}; it needs image and label"
        )
    for number, line in enumerate(lines, start=2):
        name, label = (line["image"] or "").strip(), (line["label"] or "").strip()
        split, mask = (line.get("split") or "train").strip(), (line.get("mask") or "").strip()
        if not name or not label:
            raise DataError(f"{data}: line {number}: {f'image {name} has no label' if name else 'no image is named'}")
        if split not in SPLITS:
            raise DataError(f"{data}: line {number}: unknown split '{split}'; use {', '.join(SPLITS)}")
        for path in filter(None, (name, mask)):
            if not (data.parent / path).is_file():
                raise DataError(f"{data}: line {number}: no such file: {data.parent / path}")
        yield Path(name).as_posix(), label, data.parent / mask if mask else None, split


def _attach_masks(rows: list[Row], masks: Path) -> list[Row]:
    """Give every row the mask of the same name below `masks`; a mask that fits no image is an error."""
    if not masks.is_dir():
        raise DataError(f"{masks}: no such folder of masks")
    found = find_pictures(masks)
    attached = [(name, label, found.get(stem(name), mask), split) for name, label, mask, split in rows]
    used = {mask for _, _, mask, _ in attached}
    if orphans := [path for path in found.values() if path not in used]:
        raise DataError(
            f"{orphans[0]}: this mask has no image of the same name ({len(orphans)} such masks); "
            "the folder of masks must mirror the images' folders"
        )
    if not found:
        raise DataError(f"{masks}: holds no masks")
    return attached
