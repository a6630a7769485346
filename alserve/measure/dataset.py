"""A data set of images with a class each, and a mask for those that have one; checked whole before any work starts."""

import gc
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TypeVar
from unicodedata import category, normalize

from alserve.arrays import Image, Mask
from alserve.errors import DataError, ImageError
from alserve.images.codec import decode, decode_mask, read_bytes
from alserve.images.header import SUFFIXES
from alserve.measure.listing import Identity, Listing, describe_others, find_files
from alserve.measure.rows import SPLITS, ListedImage, locate, look_up, read_rows
from alserve.parallel import ordered_map
from alserve.paths import printable
from alserve.places.disk import Disk
from alserve.places.store import Store
from alserve.places.urls import Location, open_file, path_of
from alserve.runtime.device import available_cores
from alserve.terminal import say_once

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sample:
    """One image of a data set."""

    name: str
    """Path below the data set's folder, with forward slashes."""
    image: Location
    label: int
    """Index into the data set's classes."""
    mask: Location | None
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


def read_mask(path: Location) -> Mask:
    """Read a mask of any size: bool [height, width].

    Raises:
        DataError: The file cannot be used.
    """
    return _decode(decode_mask, path)


def _decode(decoder: Callable[[bytes], Result], path: Location) -> Result:
    try:
        return decoder(read_bytes(path))
    except ImageError as error:
        raise DataError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Dataset:
    """All images of a data set, sorted by name."""

    source: Location
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
def load_dataset(data: Location, masks: Path | None = None) -> Dataset:
    """Find the images of a data set and check that classes, masks and splits fit together.

    Args:
        data: A folder with a subfolder per class (below train/, valid/ and test/ if it is split), or a CSV with
            columns image, label and optionally mask and split, paths relative to the CSV. A CSV may be in an object
            store, with the images and masks that it names: then this is its URL.
        masks: A mirror of the images' folders that holds their masks, under the same names, of any image suffix.

    Returns:
        The data set; images without a split are in "train". What lies in its folders and is not read is named.

    Raises:
        DataError: Something is missing, double, empty or unreadable; a mask is one of the images; or two classes differ
            by case, spaces or Unicode form only.
        RunError: The extra for object stores is not installed.
    """
    path = path_of(data)
    if path is not None and path.is_dir():
        root: Disk | Store = Disk(path)
        rows = list(_folder_rows(path))
    elif path is None or path.is_file():
        root, name = open_file(data)
        rows = list(read_rows(root, name))
    else:
        raise DataError(f"{data}: no such folder or CSV file")
    if not rows:
        raise DataError(f"{data}: no images found; expected a subfolder per class with images in it")
    if masks is not None:
        rows = _attach_masks(rows, masks)
    _check_files(str(data), root, rows)
    numbers = check_classes(str(data), (row.label for row in rows))
    samples = tuple(
        Sample(
            row.name,
            _location(locate(root, row.name)),
            numbers[row.label],
            _location(row.mask) if row.mask else None,
            row.split,
        )
        for row in sorted(rows, key=attrgetter("name"))
    )
    return Dataset(data if path is None else path, tuple(numbers), samples)


def _location(found: str) -> Location:
    """Return a URL as it is, and a path as such."""
    return path_of(found) or found


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


def _check_files(data: str, root: Disk | Store, rows: Sequence[ListedImage]) -> None:
    """Check that images and masks are files, no image is there twice, and no mask is an image."""
    listing = Listing()
    stored = look_up(data, root, rows) if isinstance(root, Store) else {}

    def identify(path: str, row: ListedImage) -> Identity | str:
        found = path if path in stored else listing.find(path)
        if found is None:
            raise DataError(f"{data}: {row.where}no such file, or no regular one: {path}")
        return found

    images: dict[Identity | str, ListedImage] = {}
    for row in rows:
        found = identify(locate(root, row.name), row)
        if (other := images.setdefault(found, row)) is not row:
            spelled = f", as {other.name} and as {row.name}" if other.name != row.name else ""
            raise DataError(f"{data}: {row.where}image {other.name} is listed twice{spelled}; keep one of the lines")
    uses: dict[Identity | str, list[ListedImage]] = {}
    for row in rows:
        if row.mask:
            found = identify(row.mask, row)
            if image := images.get(found):
                whose = "its own image" if image is row else f"image {image.name}"
                raise DataError(f"{data}: {row.where}the mask of {row.name} is {whose} ({row.mask}); name a mask")
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
