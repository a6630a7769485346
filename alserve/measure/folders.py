"""Folders of classes and folders of masks, on the disk or in an object store."""

import posixpath
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from alserve.errors import DataError
from alserve.images.header import SUFFIXES
from alserve.measure.listing import describe_others, find_files, kind_of_other
from alserve.measure.rows import SPLITS, ListedImage
from alserve.paths import printable
from alserve.places.listing import UNNAMEABLE
from alserve.places.place import Version
from alserve.places.store import Store
from alserve.places.urls import Location, open_store, path_of
from alserve.terminal import say_once


class Tree(Protocol):
    """The files below a folder, by their names relative to it, with forward slashes; hidden ones are left out."""

    def path(self, name: str = "") -> str:
        """Return the path, or the URL, of a file or folder."""

    def folders(self, name: str = "") -> list[str]:
        """Return the names of the folders in a folder, sorted; of the top without a name."""

    def loose(self, name: str = "") -> list[str]:
        """Return the names of the images in a folder itself, sorted."""

    def find(self, name: str = "") -> tuple[list[str], Counter[str]]:
        """Return the names of all images below a folder, sorted; and how many other files there are of each kind."""


class LocalTree:
    """A folder on the disk; see `Tree`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, name: str = "") -> str:
        """See `Tree`."""
        return str(self._root / name)

    def folders(self, name: str = "") -> list[str]:
        """See `Tree`."""
        return self._names(path for path in (self._root / name).iterdir() if path.is_dir())

    def loose(self, name: str = "") -> list[str]:
        """See `Tree`."""
        files = (self._root / name).iterdir()
        return self._names(path for path in files if path.suffix.lower() in SUFFIXES and path.is_file())

    def find(self, name: str = "") -> tuple[list[str], Counter[str]]:
        """See `Tree`."""
        images, others = find_files(self._root / name)
        return [path.relative_to(self._root).as_posix() for path in images], others

    def _names(self, paths: Iterator[Path]) -> list[str]:
        return sorted(path.relative_to(self._root).as_posix() for path in paths if not path.name.startswith("."))


class StoredTree:
    """A folder in an object store, which is listed once; see `Tree`.

    Args:
        store: The folder.

    Raises:
        DataError: It cannot be listed, nothing is in it, or a key is no name of a file.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._images: list[str] = []
        self._others: list[str] = []
        self.versions: dict[str, Version] = {}
        """The states of the images, by their URLs."""
        empty = True
        try:
            for name, version, fault in store.list():
                empty = False
                if fault:
                    raise DataError(f"{printable(store.path(name))}: has a {UNNAMEABLE}; rename it")
                if version is None or name.startswith(".") or "/." in name:
                    continue
                suffix = posixpath.splitext(name)[1].lower()  # there may be a million
                if suffix in SUFFIXES:
                    self._images.append(name)
                    self.versions[store.path(name)] = version
                elif suffix or version.bytes:  # else it marks a folder
                    self._others.append(name)
        except OSError as error:
            raise DataError(f"{store.path()}: cannot be listed: {error.strerror}") from None
        if empty:
            raise DataError(f"{store.path()}: no such object or folder")
        self._images.sort()
        self._others.sort()

    def path(self, name: str = "") -> str:
        """See `Tree`."""
        return self._store.path(name)

    def folders(self, name: str = "") -> list[str]:
        """See `Tree`."""
        start = f"{name}/" if name else ""
        below = (*_below(self._images, name), *_below(self._others, name))
        return sorted({start + rest.split("/")[0] for each in below if "/" in (rest := each[len(start) :])})

    def loose(self, name: str = "") -> list[str]:
        """See `Tree`."""
        start = len(name) + 1 if name else 0
        return [image for image in _below(self._images, name) if "/" not in image[start:]]

    def find(self, name: str = "") -> tuple[list[str], Counter[str]]:
        """See `Tree`."""
        return _below(self._images, name), Counter(kind_of_other(other) for other in _below(self._others, name))


def _below(names: list[str], folder: str) -> list[str]:
    """Return those of sorted names that are below a folder."""
    if not folder:
        return names
    return names[bisect_left(names, f"{folder}/") : bisect_left(names, f"{folder}0")]  # "0" follows "/"


def folder_rows(tree: Tree) -> Iterator[ListedImage]:
    """Return the images of a folder with a subfolder per class, below train/, valid/ and test/ if it is split.

    Raises:
        DataError: An image has no label, a class no image, or a split is unknown.
    """
    folders = tree.folders()
    names = {*folders}
    if "train" in names and (unknown := names & {"val", "validation"}):
        raise DataError(f"{tree.path(min(unknown))}: unknown split '{min(unknown)}'; use {', '.join(SPLITS)}")
    split = "train" in names and names <= {*SPLITS}
    others: Counter[str] = Counter()
    for place in folders if split else [""]:
        if loose := tree.loose(place):
            raise DataError(
                f"{tree.path(loose[0])}: this image has no label; put it into a folder named like its class"
            )
        for folder in tree.folders(place):
            images, left_out = tree.find(folder)
            others += left_out
            if not images:
                beside = f" ({describe_others(left_out.items())})" if left_out else ""
                raise DataError(
                    f"{tree.path(folder)}: this class folder holds no images; add some, or remove the folder{beside}"
                )
            label = folder.rpartition("/")[2]
            yield from (ListedImage(image, label, None, place or "train") for image in images)
    if others:
        say_once(f"{tree.path()}: {describe_others(others.items())}")


def attach_masks(rows: list[ListedImage], masks: Location) -> tuple[list[ListedImage], dict[str, Version]]:
    """Attach to every row the mask of the same name below a folder.

    Args:
        rows: The images.
        masks: The folder, on the disk or in an object store; one on the disk is there, see `check_local`.

    Returns:
        (the rows, the states of the masks in an object store by their URLs).

    Raises:
        DataError: There is no mask, two have the same name, or one fits no image.
    """
    path, versions = path_of(masks), dict[str, Version]()
    tree: Tree
    if path is None:
        tree = stored = StoredTree(open_store(str(masks)))
        versions = stored.versions
    else:
        tree = LocalTree(path)
    pictures, others = tree.find()
    found = {name: tree.path(picture) for name, picture in _by_stem(tree, pictures).items()}
    if others:
        say_once(f"{masks}: {describe_others(others.items())}")
    attached = [row._replace(mask=found.get(stem(row.name)) or row.mask) for row in rows]
    used = {row.mask for row in attached}
    if orphans := [mask for mask in found.values() if mask not in used]:
        raise DataError(
            f"{orphans[0]}: this mask has no image of the same name ({len(orphans)} such masks); "
            "the folder of masks must mirror the images' folders"
        )
    if not found:
        raise DataError(f"{masks}: holds no masks")
    return attached, versions


def stem(name: str) -> str:
    """Return an image's name without its suffix: what its mask is called."""
    return Path(name).with_suffix("").as_posix()


def find_pictures(folder: Path) -> dict[str, Path]:
    """Find all pictures below a folder, by their path in it without the suffix: how a mask finds its image.

    Raises:
        DataError: Two differ in their suffix only.
    """
    tree = LocalTree(folder)
    return {name: folder / picture for name, picture in _by_stem(tree, tree.find()[0]).items()}


def _by_stem(tree: Tree, pictures: list[str]) -> dict[str, str]:
    """Return the names of pictures by themselves without the suffix, see `find_pictures`."""
    found: dict[str, str] = {}
    for picture in pictures:
        if (other := found.setdefault(stem(picture), picture)) != picture:
            beside = PurePosixPath(other).name
            raise DataError(f"{tree.path(picture)}: {beside} lies beside it, a second mask of the same name; keep one")
    return found
