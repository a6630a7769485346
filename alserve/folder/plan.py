"""Plan a run over folders on the disk: find the images, and decide where their output files go.

Nothing is read but the first bytes of files whose suffix is no image's, and nothing is written.
"""

import hashlib
import os
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from alserve.errors import DataError, RunError
from alserve.files import irregular
from alserve.folder.planned import LeftOut, Plan, PlannedImage, describe_left_out
from alserve.folder.shards import Shard
from alserve.folder.summary import files_of_run
from alserve.images.header import FORMATS, HEAD, SUFFIXES
from alserve.images.kinds import kind_of_file
from alserve.outputs import OUTPUTS
from alserve.places.disk import Disk

SHOWN = 3
"""Examples in a message; of more, the number is told."""


def plan(
    inputs: Sequence[Path],
    out: Path,
    *,
    save: tuple[str, ...],
    shard: Shard = Shard(),  # noqa: B008  it is frozen
    keep_extension: bool = False,
    overwrite: bool = False,
) -> Plan:
    """Find the images and decide where their output files go.

    Args:
        inputs: Images and folders of images.
        out: Folder for the results.
        save: Names of outputs.
        shard: Leave the images of all other shards to them.
        keep_extension: Name the output files of a.jpg a.jpg.png, not a.png.
        overwrite: Replace files that are in no manifest.

    Raises:
        DataError: An input is missing or no file, no images are found, or two would write the same file.
        RunError: `out` is no folder, or holds files that are not of a run.
    """
    check_folder(out)
    own_folders = folders_of(out)
    place = Disk(out)
    images: list[PlannedImage] = []
    left_out: list[LeftOut] = []
    for given in inputs:
        top = Disk(given if os.path.isdir(given) else given.parent)  # noqa: PTH112  Path.is_dir raises where it may not look
        for item, name in find_on_disk(given, own_folders):
            if isinstance(item, LeftOut):
                left_out.append(item)
            else:
                images.append(PlannedImage(top, name, output_name(name, keep_extension=keep_extension), place, save))
    images.sort(key=lambda image: image.path)
    left_out.sort(key=lambda item: item.path)
    _check_names([(image.path, image.name) for image in images], out, keep_extension=keep_extension)
    names = "\n".join(sorted(image.name for image in images)).encode(errors="surrogatepass")
    if not images:
        raise no_images(inputs, left_out)
    total = len(images)
    images = [image for image in images if shard.takes(image.name)]
    _check_targets(images, out, save, overwrite=overwrite or any(out.glob("predictions*.jsonl")))
    return Plan(place, images, place.sizes(()), left_out, total, hashlib.sha256(names).hexdigest(), shard)


def no_images(inputs: Iterable[object], left_out: Iterable[LeftOut]) -> DataError:
    """Return the error of a run without images."""
    why = f"; {text}" if (text := describe_left_out(left_out)) else ""
    where = ", ".join(map(str, inputs))
    return DataError(f"no images in {where} (looked for {' '.join(sorted(SUFFIXES))}, and into other files){why}")


def check_folder(out: Path) -> None:
    """Check that the folder of the results is one, or not there yet.

    Raises:
        RunError: It is something else.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a {irregular(out) or 'file'}; name a folder with --out")


def check_inside(out: Path, folder: Path) -> None:
    """Check that a folder below that of the results, to which files are to be written, is really there.

    Raises:
        RunError: A link leads out of it.
    """
    if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(out)):
        raise RunError(f"{folder}: a symbolic link leads out of {out}; remove the link, or use another --out")


def check_target(path: object, *, is_input: bool, exists: bool) -> None:
    """Check that a file may be written.

    Args:
        path: The file, for the message.
        is_input: It is one of the images.
        exists: It is there, and was not made by a run.

    Raises:
        RunError: It may not.
    """
    if is_input:
        raise RunError(f"{path}: is an input and would be written over; use another --out")
    if exists:
        raise RunError(f"{path}: exists already; use --overwrite or another --out")


def folders_of(out: Path) -> frozenset[str]:
    """Return the folders of results, which are no inputs."""
    return frozenset(map(os.path.realpath, (out, *(out / output.folder for output in OUTPUTS.values()))))


def find_on_disk(given: Path, own_folders: frozenset[str]) -> Iterator[tuple[Path | LeftOut, str]]:
    """Find the images of one input and what is left out, each with its name relative to the input.

    Raises:
        DataError: The input is missing, or cannot be read.
    """
    try:
        if given.is_dir():
            next(given.iterdir(), None)  # whoever names a folder wants it read
            for path in _walk(given, own_folders):
                if (item := path if isinstance(path, LeftOut) else _classify(path)) is not None:
                    yield item, path.relative_to(given).as_posix() if isinstance(path, Path) else ""
        elif kind := irregular(given):
            raise DataError(f"{given}: is a {kind}, no file; save what comes out of it as a file first")
        elif given.exists():
            item = given if given.suffix.lower() in SUFFIXES else _classify(given)
            if isinstance(item, LeftOut) and item.reason not in _DOUBTFUL:
                yield LeftOut(item.path, item.reason, wanted=True), ""
            else:
                yield given, given.name
        else:
            raise DataError(f"{given}: no such file or folder")
    except OSError as error:
        raise DataError(f"{error.filename or given}: cannot be read: {error.strerror}") from None


def _walk(top: Path, own_folders: frozenset[str]) -> Iterator[Path | LeftOut]:
    """Find all files below a folder but for hidden ones and our own; links can lead in circles, and are cut there."""
    waiting = [(top, own_folders | {os.path.realpath(top)})]
    while waiting:
        folder, seen = waiting.pop()
        try:
            paths = list(folder.iterdir())
        except OSError as error:
            yield LeftOut(folder.as_posix(), f"folder that cannot be read: {error.strerror}", wanted=True)
            continue
        for path in paths:
            if path.name.startswith("."):
                continue
            if not os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises where a folder may not be searched
                yield path
            elif (real := os.path.realpath(path)) not in seen:
                waiting.append((path, seen | {real}))


UNREADABLE, _BROKEN, _FOREIGN_TIFF = "file that cannot be read", "broken link", "TIFF with a foreign suffix"
_DOUBTFUL = {UNREADABLE, _BROKEN, _FOREIGN_TIFF}
"""Reasons to leave a file out of a folder, but not where it was named itself: then it is done, or fails."""


def _classify(path: Path) -> Path | LeftOut | None:
    """Tell an image from what is left out; None for files that are no images.

    A file with an image's suffix that cannot be read is an image all the same: it will fail, and be noted.
    """
    known = path.suffix.lower() in SUFFIXES
    try:
        if irregularity := irregular(path):
            return LeftOut(path.as_posix(), irregularity)
        if known:
            return path
        with path.open("rb") as file:
            kind = kind_of_file(path, file.read(HEAD))
    except OSError:
        broken = path.is_symlink() and not os.path.exists(path)  # noqa: PTH110  Path.exists raises over circles
        return path if known else LeftOut(path.as_posix(), _BROKEN if broken else UNREADABLE)
    if kind == "TIFF" and path.suffix:
        return LeftOut(path.as_posix(), _FOREIGN_TIFF)
    return path if kind in FORMATS else LeftOut(path.as_posix(), kind) if kind else None


def output_name(name: str, *, keep_extension: bool) -> str:
    """Return the name of an image's PNG files.

    Args:
        name: The image's name, relative to its input.
        keep_extension: Name those of a.jpg a.jpg.png, not a.png.
    """
    path = PurePosixPath(name)
    return str(path.with_suffix(".png")) if path.suffix.lower() in SUFFIXES and not keep_extension else f"{name}.png"


def _check_names(found: Sequence[tuple[str, str]], out: Path, *, keep_extension: bool) -> None:
    """Refuse images whose output files would have the same name, on the file system of `out`.

    Raises:
        DataError: There are such; all are counted, and the first few named.
    """
    clashes = find_clashes(found)
    if not clashes and (alike := find_clashes(found, fold_name)):
        clashes = alike if is_blind(out) else []
    if clashes:
        raise clashing(clashes, len(clashes), keep_extension=keep_extension)


def is_blind(out: Path) -> bool:
    """Tell whether the file system of a folder is blind to case or to Unicode's spellings, see `fold_name`."""
    return _same_file(out, "a", "A") or _same_file(out, "\xe9", "e\u0301")


def clashing(clashes: Sequence[tuple[str, Sequence[str]]], count: int, *, keep_extension: bool) -> DataError:
    """Return the error of images whose output files would have the same name.

    Args:
        clashes: See `find_clashes`.
        count: Number of names that several have; `clashes` may be the first of them.
        keep_extension: See `output_name`.
    """
    named = ", ".join(
        f"{sources[0]} and {sources[1]} would both be written to {name}" for name, sources in clashes[:SHOWN]
    )
    more = f", and {count - SHOWN} more" if count > SHOWN else ""
    kept = [
        (source, str(PurePosixPath(name).with_name(f"{PurePosixPath(source).name}.png")))
        for name, sources in clashes
        for source in sources
    ]
    apart = not keep_extension and not find_clashes(kept, fold_name)
    how = "use --keep-extension" if apart else "rename them, or use an --out for each input"
    return DataError(f"{named}{more}; {how}")


def fold_name(name: str) -> str:
    """Return what a file system that is blind to case and to Unicode's spellings takes a name for."""
    return unicodedata.normalize("NFC", name).casefold()


def find_clashes(found: Iterable[tuple[str, str]], fold: Callable[[str], str] = str) -> list[tuple[str, Sequence[str]]]:
    """Find images whose output files would have the same name.

    Args:
        found: (image, name of its output files).
        fold: What tells names apart.

    Returns:
        (the name, all its images), for each name that several have.
    """
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for source, name in found:
        groups[fold(name)].append((source, name))
    return [(group[0][1], [source for source, _ in group]) for group in groups.values() if len(group) > 1]


def _same_file(folder: Path, one: str, other: str) -> bool:
    """Tell whether two names are one file's, in a folder or above it where it is not there, by a trial file."""
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{one}-", suffix=one) as file:
            path = Path(file.name)
            return path.with_name(f".{other}-{path.name[3:-1]}{other}").exists()
    except OSError:
        return False


def _check_targets(images: Sequence[PlannedImage], out: Path, save: Sequence[str], *, overwrite: bool) -> None:
    """Refuse to write over an input, outside of `out`, and over any file unless that was asked for or is of a run."""
    top = Path(os.path.realpath(out))
    inside = {real for image in images if Path(real := os.path.realpath(image.path)).is_relative_to(top)}
    targets = [out / target for image in images for target in image.targets.values()]
    for folder in sorted({target.parent for target in targets}):
        check_inside(out, folder)
    for target in (*targets, *(out / name for name in files_of_run(save))):
        is_input = bool(inside) and os.path.realpath(target) in inside
        check_target(target, is_input=is_input, exists=not overwrite and os.path.lexists(target))
