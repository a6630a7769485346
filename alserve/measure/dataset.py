"""A data set of images with a class each, and a mask for those that have one; checked whole before any work starts."""

import gc
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeVar
from unicodedata import category, normalize

from alserve.arrays import Image, Mask
from alserve.errors import DataError, ImageError
from alserve.images.codec import decode, decode_mask, read_bytes
from alserve.measure.folders import LocalTree, StoredTree, attach_masks, folder_rows
from alserve.measure.listing import Identity, Listing
from alserve.measure.rows import ListedImage, locate, look_up, read_rows
from alserve.parallel import ordered_map
from alserve.paths import printable
from alserve.places.disk import Disk
from alserve.places.place import Version
from alserve.places.store import Store
from alserve.places.urls import Location, open_file, open_store, path_of
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
    stored: Mapping[str, Version] = field(default_factory=dict, repr=False)
    """States of the images and masks that are in an object store, by their URLs."""

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
def load_dataset(data: Location, masks: Location | None = None) -> Dataset:
    """Find the images of a data set and check that classes, masks and splits fit together.

    Args:
        data: A folder with a subfolder per class (below train/, valid/ and test/ if it is split), or a CSV with
            columns image, label and optionally mask and split, paths relative to the CSV. Either may be in an object
            store, the CSV with the images and masks that it names: then this is its URL.
        masks: A mirror of the images' folders that holds their masks, under the same names, of any image suffix; a
            path, or a URL.

    Returns:
        The data set; images without a split are in "train". What lies in its folders and is not read is named.

    Raises:
        DataError: Something is missing, double, empty or unreadable; a mask is one of the images; or two classes differ
            by case, spaces or Unicode form only.
        RunError: The extra for object stores is not installed.
    """
    check_local(data, masks)
    root, rows, versions = _find_rows(data)
    if not rows:
        raise DataError(f"{data}: no images found; expected a subfolder per class with images in it")
    if masks is not None:
        rows, of_masks = attach_masks(rows, masks)
        versions |= of_masks
    if isinstance(root, Store):
        versions |= look_up(str(data), root, rows, versions)
    _check_files(str(data), root, rows, versions)
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
    return Dataset(path_of(data) or data, tuple(numbers), samples, versions)


def check_local(data: Location, masks: Location | None = None) -> None:
    """Refuse a path at which there is nothing, before anything slow is done for it; a URL is not looked up.

    Args:
        data: See `load_dataset`.
        masks: See `load_dataset`.

    Raises:
        DataError: There is no such folder or file.
    """
    path = path_of(data)
    if path is not None and not (path.is_dir() or path.is_file()):
        raise DataError(f"{data}: no such folder or CSV file")
    folder = None if masks is None else path_of(masks)
    if folder is not None and not folder.is_dir():
        raise DataError(f"{masks}: no such folder of masks")


def _find_rows(data: Location) -> tuple[Disk | Store, list[ListedImage], dict[str, Version]]:
    """Return the folder of a data set or its CSV, the images, and what the listing of a store told of them by URL."""
    path = path_of(data)
    if path is not None and path.is_dir():
        return Disk(path), list(folder_rows(LocalTree(path))), {}
    folder, name = open_file(data)
    if isinstance(folder, Disk) or _is_object(folder, name, data):
        return folder, list(read_rows(folder, name)), {}
    top = open_store(str(data))
    tree = StoredTree(top)
    return top, list(folder_rows(tree)), tree.versions


def _is_object(folder: Store, name: str, data: Location) -> bool:
    """Tell a CSV in an object store from a folder."""
    if not name or str(data).endswith("/"):
        return False
    try:
        folder.version(name)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"{data}: cannot be read: {error.strerror}") from None
    return True


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


def _check_files(data: str, root: Disk | Store, rows: Sequence[ListedImage], stored: Mapping[str, Version]) -> None:
    """Check that images and masks are files, no image is there twice, and no mask is an image.

    Args:
        data: The data set, for messages.
        root: Its folder.
        rows: Its images.
        stored: What is in an object store, by URL.
    """
    listing = Listing()

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
