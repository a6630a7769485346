"""The two data sets of the paper, from their official archives to a CSV that `load_dataset` reads.

An archive need not be what it says: names from it stay below the output folder, sizes are counted while they are read,
not believed, and what is written is an image.
"""

import csv
import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from alserve.errors import DataError, ImageError
from alserve.files import write_atomic
from alserve.images.codec import decode_grey, encode_png, to_grey
from alserve.images.header import read_header
from alserve.measure.dataset import check_classes
from alserve.paths import below
from alserve.terminal import say

GLAS_VALID = frozenset({2, 5, 12, 18, 24, 26, 36, 38, 51, 52, 54, 63, 65, 68, 72, 74, 77, 83})
"""Numbers of the images train_N that the published split 0, fold 0, validates on."""

VALID_SHARE = 0.2
"""Share of each class's training images that a seeded split validates on."""

CUB_FOREGROUND = 127
"""CUB's masks are grey: how many of the annotators took a pixel for bird. Above this value more than half did."""

MOST_BYTES = 64 << 20
"""A file in an archive is at most so large."""
MOST_HEADER = 64 << 10
"""What a tar archive says of one file is at most so large."""
MOST_UNPACKED, MOST_MEMBERS = 8 << 30, 200_000
"""All files of an archive are together at most so many bytes, and so many."""

Row = tuple[str, str, str, str]
"""image, mask, label, split."""

Result = TypeVar("Result")


def unpack_glas(archive: Path, out: Path, *, seed: int | None = None) -> Path:
    """Turn the Warwick-QU zip (GlaS) into a data set.

    Args:
        archive: The zip, with Grade.csv, NAME.bmp and NAME_anno.bmp.
        out: Folder for images/CLASS/, masks/CLASS/ and data.csv, which is written last.
        seed: Draws the images of split "valid"; left out, they are those of the published split 0, fold 0.

    Returns:
        The CSV.

    Raises:
        DataError: The archive is none, is cut short, or lacks something.
    """
    with _reading(archive), zipfile.ZipFile(archive) as file:
        members = {
            PurePosixPath(entry.filename).name: entry
            for entry in file.infolist()
            if not entry.filename.startswith("__MACOSX")
        }
        if "Grade.csv" not in members:
            raise DataError(f"{archive}: holds no Grade.csv; give the archive of the GlaS challenge (Warwick-QU)")
        grades = _grades(archive, _read_member(archive, file, members["Grade.csv"]).decode())
        rows: list[Row] = []
        for name, label in sorted(grades.items()):
            image, mask = f"images/{label}/{name}.bmp", f"masks/{label}/{name}.bmp"
            for target, member in ((image, f"{name}.bmp"), (mask, f"{name}_anno.bmp")):
                if member not in members:
                    raise DataError(f"{archive}: Grade.csv names {name}, but there is no {member}")
                path = below(out, target, archive)
                data = _read_member(archive, file, members[member])
                _as_image(archive, member, read_header, data)
                write_atomic(path, data)
            rows.append((image, mask, label, "test" if name.startswith("test") else "train"))
    if seed is not None:
        return _write_table(out, _hold_out(rows, seed))
    published = {f"train_{number}" for number in GLAS_VALID}
    return _write_table(out, [(*row[:3], "valid") if PurePosixPath(row[0]).stem in published else row for row in rows])


def _grades(archive: Path, text: str) -> dict[str, str]:
    """Read the images' classes by their names from Grade.csv."""
    titles, *lines = list(csv.reader(io.StringIO(text), skipinitialspace=True)) or [[]]
    titles = [title.strip() for title in titles]
    if "grade (GlaS)" not in titles:
        raise DataError(f"{archive}: Grade.csv has no column 'grade (GlaS)'")
    column = titles.index("grade (GlaS)")
    if short := [number for number, line in enumerate(lines, start=2) if 0 < len(line) <= column]:
        raise DataError(f"{archive}: Grade.csv names no grade in line {short[0]}; download it again")
    grades = {line[0].strip(): line[column].strip() for line in lines if line}
    if not grades:
        raise DataError(f"{archive}: Grade.csv names no images; download it again")
    check_classes(f"{archive}: Grade.csv", grades.values())
    return grades


def _read_member(archive: Path, file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read a file of a zip, no further than it may be large, whatever size it claims."""
    if entry.flag_bits & 1:
        raise DataError(f"{archive}: {entry.filename} is encrypted; download the archive again")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DataError(f"{archive}: {entry.filename} is packed in an unknown way; download the archive again")
    with file.open(entry) as member:
        return _at_most(archive, entry.filename, member.read(MOST_BYTES + 1))


def _at_most(archive: Path, name: str, data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        raise DataError(f"{archive}: {name} holds more than {MOST_BYTES >> 20} MiB, as no file of this data set does")
    return data


def _as_image(archive: Path, name: str, read: Callable[[bytes], Result], data: bytes) -> Result:
    try:
        return read(data)
    except ImageError as error:
        raise DataError(f"{archive}: {name}: {error}; download the archive again") from None


def unpack_cub(archive: Path, masks: Path, out: Path, *, seed: int = 0) -> Path:
    """Turn CUB-200-2011 into a data set; its own test split is kept.

    Args:
        archive: CUB_200_2011.tgz.
        masks: segmentations.tgz.
        out: Folder for images/CLASS/, masks/CLASS/ and data.csv, which is written last.
        seed: Draws the images of split "valid" from the training images; the published fold is not in the archive.

    Returns:
        The CSV.

    Raises:
        DataError: An archive is none, is cut short, or lacks something.
    """
    tables: dict[str, dict[str, str]] = {}
    with _reading(archive):
        for name, data in _members(archive, ".txt"):
            lines = [line.split(maxsplit=1) for line in data.decode().splitlines() if line.strip()]
            tables[name] = {line[0]: line[1].strip() for line in lines if len(line) > 1}
    wanted = ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt")
    if missing := [name for name in wanted if name not in tables]:
        raise DataError(f"{archive}: holds no {' and no '.join(missing)}; give CUB_200_2011.tgz")
    names, numbers, classes, training = (tables[name] for name in wanted)
    if torn := [key for key in names if key not in training or numbers.get(key) not in classes]:
        raise DataError(f"{archive}: its tables say no class or split of image {torn[0]}; download it again")
    if not names:
        raise DataError(f"{archive}: its tables name no images; download it again")
    labels = {name: classes[numbers[key]] for key, name in names.items()}
    check_classes(str(archive), labels.values())
    split = {name: "train" if training[key] == "1" else "test" for key, name in names.items()}
    images = _write_members(archive, ".jpg", {PurePosixPath(name).name: name for name in names.values()}, out)
    drawn = _write_members(masks, ".png", {f"{PurePosixPath(name).stem}.png": name for name in names.values()}, out)
    for where, found in ((archive, images), (masks, drawn)):
        if lacking := sorted(set(labels) - set(found)):
            raise DataError(f"{where}: {len(lacking)} images are not in it, such as {lacking[0]}; download it again")
    rows = [(images[name], drawn[name], labels[name], split[name]) for name in sorted(labels)]
    return _write_table(out, _hold_out(rows, seed))


def _write_members(archive: Path, suffix: str, wanted: Mapping[str, str], out: Path) -> dict[str, str]:
    """Write the wanted images, or their masks, below `out`; return the files' names by the images'."""
    found: dict[str, str] = {}
    for name, data in _members(archive, suffix):
        if name not in wanted:
            continue
        target = f"{'masks' if suffix == '.png' else 'images'}/{PurePosixPath(wanted[name]).parent.name}/{name}"
        path = below(out, target, archive)
        if suffix == ".png":
            grey = _as_image(archive, name, decode_grey, data)
            write_atomic(path, encode_png(to_grey(grey > CUB_FOREGROUND)))
        else:
            _as_image(archive, name, read_header, data)
            write_atomic(path, data)
        found[wanted[name]] = target
    return found


def _members(archive: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Go through a tar archive; yield name, without its folder, and content of the files with that suffix."""
    with _reading(archive), _Unpacked(archive) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as file:
        for count, member in enumerate(file):
            if count == MOST_MEMBERS:
                raise DataError(f"{archive}: holds more than {MOST_MEMBERS:,} files, as this data set does not")
            if member.offset_data + member.size > MOST_UNPACKED:  # what is passed over is unpacked as well
                raise DataError(f"{archive}: holds more than {MOST_UNPACKED >> 30} GiB, as this data set does not")
            path = PurePosixPath(member.name)
            if member.isfile() and path.suffix.lower() == suffix and not path.name.startswith("."):
                data = unpacked.read_content(min(member.size, MOST_BYTES + 1))
                yield path.name, _at_most(archive, member.name, data)


class _Unpacked(gzip.GzipFile):
    """What a gzip file holds: headers of usual lengths only, and content up to where the caller has looked."""

    def read(self, size: int | None = -1) -> bytes:
        """Read a header for `tarfile`, which would believe whatever length one claims."""
        return super().read(MOST_HEADER if size is None or size < 0 else min(size, MOST_HEADER))

    def read_content(self, size: int) -> bytes:
        """Read the content of the file whose header was read last."""
        data = super().read(size)
        if len(data) < size:
            raise EOFError
        return data


def _hold_out(rows: Sequence[Row], seed: int) -> list[Row]:
    """Move a share of every class's training images to split "valid"."""
    rng = np.random.default_rng(seed)
    moved: set[str] = set()
    for label in sorted({row[2] for row in rows}):
        members = [row[0] for row in rows if row[2] == label and row[3] == "train"]
        moved |= set(rng.permutation(members)[: round(VALID_SHARE * len(members))])
    return [(*row[:3], "valid") if row[0] in moved else row for row in rows]


def _write_table(out: Path, rows: Sequence[Row]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("image", "mask", "label", "split"), *rows])
    path = out / "data.csv"
    write_atomic(path, text.getvalue().encode())
    counts = ", ".join(f"{sum(row[3] == split for row in rows)} {split}" for split in ("train", "valid", "test"))
    say(f"{path}: {len({row[2] for row in rows})} classes; {counts}")
    return path


_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    csv.Error,
    struct.error,
    EOFError,
    LookupError,
    RuntimeError,  # NotImplementedError and RecursionError as well
    ValueError,  # UnicodeError as well
    OverflowError,
)
"""What the standard library raises over archives that are cut short, changed, or made to confuse it."""


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into one line."""
    if not archive.is_file():
        raise DataError(f"{archive}: no such file, or no regular one")
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the archive
            raise
        raise DataError(f"{archive}: is no such archive, or cut short; download it again") from None
    except _DAMAGE:
        raise DataError(f"{archive}: is no such archive, or cut short; download it again") from None
