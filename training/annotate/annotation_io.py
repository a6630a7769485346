"""The commands that carry masks and drafts between annotation programs and folders."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from alserve.arrays import Mask
from alserve.errors import DataError, OptionError
from alserve.files import write_atomic
from alserve.images.codec import encode_png, peek_shape, read_bytes, to_grey
from alserve.measure.dataset import Dataset, load_dataset, read_mask
from alserve.measure.folders import find_pictures, stem
from alserve.measure.listing import Listing
from alserve.paths import below
from alserve.places.urls import Location
from alserve.terminal import say
from training.annotate.checks import check_mirrored, is_marked
from training.annotate.formats import FORMATS, Annotation, Draft, Source, read_annotations, recognized, written_formats
from training.annotate.formats.label_studio import UPLOADED

MOST_SAID = 4
"""Largest number of names in one message."""


def import_masks(source: Path, out: Path, data: Path | None = None, *, overwrite: bool = False) -> None:
    """Write what an annotation program keeps as masks that `alserve train` reads: PNG, 0 and 255.

    Everything is checked before anything is written. An image that the annotator skipped
    becomes an empty file NAME.skip.

    Args:
        source: See `training.annotate.formats.read_annotations`.
        out: Folder for the masks.
        data: The data set: masks get the names of its images, and must have their sizes. An image is found by as much
            of its path as is known, such as the file name.
        overwrite: Replace masks that are there and differ.

    Raises:
        DataError: The source cannot be read, nothing in it fits, or something does not.
    """
    known = _Known(load_dataset(data)) if data else None
    if known is not None:
        known.check_folders(source, out)
    files: dict[Path, bytes] = {}
    strangers: list[str] = []
    for annotation in read_annotations(source, known.shape_of if known else None):
        path = _place(annotation, out, known, source)
        if path is None:
            strangers.append(annotation.name)
            continue
        if path in files:
            name = path.relative_to(out).with_suffix("").as_posix()
            raise DataError(f"{source}: holds two masks of {name}; keep one")
        files[path] = b"" if annotation.mask is None else encode_png(to_grey(annotation.mask))
    if strangers:
        more = f" and {len(strangers) - MOST_SAID} more" if len(strangers) > MOST_SAID else ""
        say(f"{', '.join(strangers[:MOST_SAID])}{more}: no such image in {data}, left out")
    if not files:
        raise DataError(f"{source}: holds no mask{f' of an image in {data}' if data else ''}")
    for path, content in files.items():
        if not overwrite and path.is_file() and read_bytes(path) != content:
            raise DataError(f"{path}: is there already, and differs; replace it with --overwrite")
    for path, content in files.items():
        write_atomic(path, content)
    skipped = sum(not content for content in files.values())
    masks = len(files) - skipped
    print(f"{masks} mask{'' if masks == 1 else 's'}{f', {skipped} skipped' if skipped else ''}, in {out}")


def _place(annotation: Annotation, out: Path, known: "_Known | None", source: Path) -> Path | None:
    """Return where a mask belongs below `out`; None where the data set has no such image."""
    name = _own_name(annotation.name) if known is None else known.find(annotation.name)
    if name is None:
        return None
    path = below(out, f"{name}.{'skip' if annotation.mask is None else 'png'}", source)
    if known is not None:
        known.check_free(path)
        if annotation.mask is not None:
            _check_size(annotation.name, annotation.mask, known.images[name])
    return path


def _check_size(name: str, mask: Mask, image: Location) -> None:
    shape = peek_shape(image)
    if mask.shape != shape:
        size = f"{shape[1]} x {shape[0]}" if shape else "no readable size"
        raise DataError(f"{name}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {image} has {size}")


def _own_name(name: str) -> str:
    """Return the path that a mask is written under where no data set says it: never one outside the folder."""
    path = PurePosixPath(stem(name))
    outside = path.is_absolute() or ".." in path.parts or PureWindowsPath(path).drive
    return path.name if outside else str(path)


class _Known:
    """The images of a data set, to be found by the ends of their paths."""

    def __init__(self, dataset: Dataset) -> None:
        self.source = dataset.source
        self.images = {stem(sample.name): sample.image for sample in dataset.samples}
        self.names = {stem(sample.name): sample.name for sample in dataset.samples}
        self._listing = Listing()
        self._identities = {self._listing.find(str(path)) for path in self.images.values()}
        self._by_tail: dict[str, list[str]] = {}
        for name in self.images:
            for tail in _tails(name):
                self._by_tail.setdefault(tail, []).append(name)
        self._deepest = max(name.count("/") for name in self.images) + 1

    def check_folders(self, source: Path, out: Path) -> None:
        """Refuse to take the images for masks, and to put masks where they would be taken for images.

        Raises:
            DataError: Says which folder it is.
        """
        if recognized(Source(source)) is FORMATS["pictures"]:
            for path in find_pictures(source).values():
                if self._listing.find(str(path)) in self._identities:
                    raise DataError(f"{path}: is an image of {self.source}, not a mask; name the folder of masks")
        if Path(self.source).is_dir() and out.resolve().is_relative_to(Path(self.source).resolve()):
            raise DataError(f"{out}: lies in the data set, where masks would be taken for images; name another --out")

    def check_free(self, path: Path) -> None:
        """Refuse a mask's path where an image of the data set is.

        Raises:
            DataError: Says so.
        """
        if path.exists() and self._listing.find(str(path)) in self._identities:
            raise DataError(f"{path}: is an image of {self.source}, which no mask replaces; name another --out")

    def shape_of(self, name: str) -> tuple[int, int] | None:
        """Return (height, width), in pixels, of the image that `find` finds; None where it finds none.

        Raises:
            DataError: See `find`, or its size cannot be read.
        """
        found = self.find(name)
        if found is None:
            return None
        shape = peek_shape(self.images[found])
        if shape is None:
            raise DataError(f"{self.images[found]}: has no readable size")
        return shape

    def find(self, name: str) -> str | None:
        """Find the image that shares most of the path; return its name without suffix.

        Raises:
            DataError: Several share as much, or its name cannot be used below another folder.
        """
        tails = _tails(stem(name), self._deepest)
        for tail in (*tails, UPLOADED.sub("", tails[-1])):
            hits = self._by_tail.get(tail, [])
            if len(hits) > 1:
                raise DataError(f"{name}: may be {hits[0]} or {hits[1]}; name its folder as well")
            if hits:
                check_mirrored(self.names[hits[0]], self.source)
                return hits[0]
        return None


def _tails(name: str, most: int | None = None) -> list[str]:
    """Return the ends of a path, from the longest, of at most `most` parts, to the file name."""
    parts = PurePosixPath(name).parts
    first = 0 if most is None else max(0, len(parts) - most)
    return ["/".join(parts[start:]) for start in range(first, len(parts))]


def export_masks(folder: Path, out: Path, kind: str, prefix: str) -> None:
    """Write what a person is asked to draw, with the drafts, as a file that annotation programs read.

    Args:
        folder: That of `alserve train --oracle folder:DIR`.
        out: The file to write.
        kind: Name of one of `training.annotate.formats.FORMATS` that is written.
        prefix: See `training.annotate.formats.Format`.

    Raises:
        OptionError: There is no such format, or it is only read.
        DataError: Nothing is to be drawn.
    """
    chosen = FORMATS.find(kind)
    if chosen.write is None:
        raise OptionError(f"format '{kind}' is only read; use one of: {', '.join(written_formats())}")
    drafts = list(_drafts(folder))
    if not drafts:
        raise DataError(
            f"{folder}: nothing is to be drawn here; 'alserve train --oracle folder:{folder}' asks for masks"
        )
    write_atomic(out, chosen.write(drafts, prefix))
    print(f"{len(drafts)} to draw, {sum(draft.mask is not None for draft in drafts)} with a draft, in {out}")
    if chosen.setup:
        print(chosen.setup)


def _drafts(folder: Path) -> Iterator[Draft]:
    done, drafts = find_pictures(folder / "masks"), find_pictures(folder / "drafts")
    for name, image in find_pictures(folder / "images").items():
        shape = peek_shape(image)
        if name in done or is_marked(folder / "masks", name, "skip") or shape is None:
            continue
        mask = read_mask(drafts[name]) if name in drafts else None
        if mask is not None:
            _check_size(str(drafts[name]), mask, image)
        yield Draft(image.relative_to(folder / "images").as_posix(), shape, mask)
