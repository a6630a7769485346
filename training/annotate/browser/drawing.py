"""The mask of one image as a person draws it: begun in `begun/`, finished in `masks/`, where a run looks for it."""

import hashlib
import os
from collections.abc import Callable
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import numpy as np

from alserve.arrays import Mask
from alserve.errors import AlserveError, DataError
from alserve.files import write_atomic
from alserve.images.codec import encode_png, peek_shape, to_grey
from alserve.images.header import SUFFIXES
from alserve.measure.dataset import Sample, read_mask
from alserve.measure.folders import stem
from alserve.paths import below
from training.annotate.checks import looks_inverted
from training.annotate.oracle import FolderOracle, NoMask

MARKERS = ("skip", "empty", "full")
"""What a person may say of an image or its mask, each by a file; see `training.annotate.oracle.FolderOracle`."""


class State(StrEnum):
    """How far an image is, in the words of the page."""

    TO_DRAW = "to draw"
    BEGUN = "begun"
    DRAWN = "drawn"
    EMPTY = "nothing here"
    SKIPPED = "skipped"
    FAULTY = "not usable"


DONE = frozenset({State.DRAWN, State.EMPTY, State.SKIPPED})
"""What a run needs no more of."""


class ChangedError(AlserveError):
    """The mask is not the one that was changed: another window or program has saved it meanwhile."""


class DoubtError(AlserveError):
    """The mask is probably not meant; the person says whether it is.

    Args:
        kind: "empty", nothing is drawn; or "full", the background seems to be drawn.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(
            {
                "empty": "nothing is drawn in this image",
                "full": "the mask covers the image's border nearly everywhere, as where the background was painted",
            }[kind]
        )
        self.kind = kind


class Drawing:
    """One image that is asked for, and the files of its mask.

    Every function leaves files that are whole, in a state that a person or a run can continue from.

    Args:
        folder: That of a `training.annotate.oracle.FolderOracle`.
        name: The image below `images/`.

    Raises:
        DataError: The name could lead out of the folder.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.image = below(folder / "images", name)
        self.stem = stem(name)
        self._draft = below(folder / "drafts", f"{self.stem}.png")
        self._begun = below(folder / "begun", f"{self.stem}.png")
        self._finished = below(folder / "masks", f"{self.stem}.png")
        self._oracle = FolderOracle(folder)
        self._examined: tuple[str, State, str] = ("", State.TO_DRAW, "")

    @cached_property
    def key(self) -> str:
        """What the image is called in addresses: 16 hexadecimal digits."""
        return hashlib.sha256(self.name.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image in pixels.

        Raises:
            DataError: It cannot be read.
        """
        if shape := peek_shape(self.image):
            return shape
        raise DataError(f"{self.image}: cannot be read; put the image back")

    @property
    def version(self) -> str:
        """Names what the files hold now: another after every change, whoever made it."""
        marks = [path for kind in MARKERS for path in self._markers(kind)]
        return "-".join(_stamp(path) for path in (self._begun, *self._saved(), *marks)) or "none"

    def examine(self) -> tuple[State, str]:
        """Return how far the image is, and what is wrong with its mask where something is."""
        version = self.version
        if self._examined[0] != version:
            self._examined = (version, *self._look())
        return self._examined[1:]

    def _look(self) -> tuple[State, str]:
        saved, skipped = self._saved(), self._markers("skip")
        if not saved:
            begun = State.BEGUN if self._begun.is_file() else State.TO_DRAW
            return (State.SKIPPED if skipped else begun), ""
        try:
            if len(saved) > 1:
                raise DataError(f"{saved[1]}: {saved[0].name} lies beside it, a second mask of the same name; keep one")
            mask = self._oracle.answer(Sample(self.name, self.image, 0, None, "train"), saved[0])
        except AlserveError as error:
            return State.FAULTY, str(error)
        return (State.DRAWN if not isinstance(mask, NoMask) and mask.any() else State.EMPTY), ""

    def start(self) -> tuple[str, Mask | None]:
        """Return what drawing starts from: "mask", a finished or begun one; "draft", the model's; else "nothing".

        A file that cannot be read, or has another size, is passed over.
        """
        for kind, paths in (("mask", [*self._saved(), self._begun]), ("draft", [self._draft])):
            for path in paths:
                if (mask := self._read(path)) is not None:
                    return kind, mask
        return "nothing", None

    def _read(self, path: Path) -> Mask | None:
        try:
            mask = read_mask(path) if path.is_file() else None
        except DataError:
            return None
        return mask if mask is not None and mask.shape == self.shape else None

    def save(self, mask: Mask, version: str) -> None:
        """Save a mask that is being drawn. One that was finished, empty or skipped is begun again by it.

        Args:
            mask: bool [height, width].
            version: What was changed; "*" replaces whatever is there.

        Raises:
            ChangedError: The files hold something else by now.
        """
        if version not in {"*", self.version}:
            _, there = self.start()
            if there is not None and np.array_equal(there, mask):  # the answer to the same was lost
                return
            raise ChangedError(f"{self.name}: the mask was changed by another window or program meanwhile")
        self._take_back()
        write_atomic(self._begun, encode_png(to_grey(mask)))

    def finish(self, *, sure: bool) -> None:
        """Make what is begun the mask that a run takes.

        Args:
            sure: The person said that a mask that looks inverted is right.

        Raises:
            DoubtError: Nothing is drawn, or the mask looks inverted.
            DataError: A paint program's mask cannot be used.
        """
        state, problem = self.examine()
        if state in {State.DRAWN, State.EMPTY}:
            return
        saved = self._saved()
        mask = self._read(saved[0] if saved else self._begun)
        if mask is None and problem:
            raise DataError(problem)
        if mask is None or not mask.any():
            raise DoubtError("empty")
        if mask.all() or looks_inverted(mask):
            if not sure:
                raise DoubtError("full")
            self._mark("full")
        elif problem:
            raise DataError(problem)
        if not saved:
            self._unmark("skip")
            _move(self._begun, self._finished)

    def say_empty(self) -> None:
        """Finish with a mask without foreground. What is begun stays, for the case that the person takes it back."""
        self._take_back()
        self._mark("empty")
        write_atomic(self._finished, encode_png(np.zeros(self.shape, np.uint8)))

    def skip(self) -> None:
        """Mark the image as one that cannot be drawn. What is begun stays, as with `say_empty`."""
        self._take_back()
        self._mark("skip")

    def reopen(self) -> None:
        """Take back that the image is finished, empty or skipped: it is as it was before."""
        self._take_back()

    def _take_back(self) -> None:
        """Move the finished mask to where it is drawn on, unless it is empty, and remove all markers.

        It is moved, so that at every moment there is a mask.
        """
        empty = self.examine()[0] == State.EMPTY
        for path in self._saved():
            if empty and path == self._finished:
                path.unlink()
            elif self._read(path) is None:
                _move(path, self._begun.with_name(f"{self._begun.stem}.unusable{path.suffix}"))
            else:
                if path != self._finished:  # of another kind: what it holds, and the file itself
                    write_atomic(self._begun, encode_png(to_grey(read_mask(path))))
                _move(path, self._begun.with_suffix(path.suffix))
        for kind in MARKERS:
            self._unmark(kind)

    def _saved(self) -> list[Path]:
        """Return the finished mask, from this page or a paint program; more than one is a mistake."""
        return self._beside(lambda end: end.lower() in SUFFIXES)

    def _markers(self, kind: str) -> list[Path]:
        return self._beside(lambda end: end in {f".{kind}", f".{kind}.txt"})  # as `is_marked` of the oracle reads them

    def _beside(self, fits: Callable[[str], bool]) -> list[Path]:
        """Return the files that differ from the finished mask in the end of their names only."""
        folder, name = self._finished.parent, self._finished.stem
        try:
            there = os.listdir(folder)  # noqa: PTH208  all images are looked at every second
        except FileNotFoundError:
            return []
        return sorted(folder / other for other in there if other.startswith(name) and fits(other[len(name) :]))

    def _mark(self, kind: str) -> None:
        write_atomic(self._finished.with_name(f"{self._finished.stem}.{kind}"), b"")

    def _unmark(self, kind: str) -> None:
        for path in self._markers(kind):
            path.unlink(missing_ok=True)


def _move(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    path.replace(to)


def _stamp(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError:
        return ""
    return f"{path.parent.name[:1]}{path.suffix[1:]}{facts.st_mtime_ns:x}.{facts.st_size:x}"
