"""The two data sets of the paper, from their official archives to a CSV that `load_dataset` reads."""

import csv
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.imageio import decode_grey, encode_png, to_grey
from alserve.terminal import say

GLAS_VALID = frozenset({2, 5, 12, 18, 24, 26, 36, 38, 51, 52, 54, 63, 65, 68, 72, 74, 77, 83})
"""Numbers of the images train_N that the published split 0, fold 0, validates on."""

VALID_SHARE = 0.2
"""Share of each class's training images that a seeded split validates on."""

CUB_FOREGROUND = 127
"""CUB's masks are grey: how many of the annotators took a pixel for bird. Above this value more than half did."""

Row = tuple[str, str, str, str]
"""image, mask, label, split."""


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
        members = {PurePosixPath(name).name: name for name in file.namelist() if not name.startswith("__MACOSX")}
        if "Grade.csv" not in members:
            raise DataError(f"{archive}: holds no Grade.csv; give the archive of the GlaS challenge (Warwick-QU)")
        lines = list(csv.reader(io.StringIO(file.read(members["Grade.csv"]).decode()), skipinitialspace=True))
        titles = [title.strip() for title in lines[0]]
        if "grade (GlaS)" not in titles:
            raise DataError(f"{archive}: Grade.csv has no column 'grade (GlaS)'")
        column = titles.index("grade (GlaS)")
        grades = {line[0].strip(): line[column].strip() for line in lines[1:] if line}
        rows: list[Row] = []
        for name, label in sorted(grades.items()):
            image, mask = f"images/{label}/{name}.bmp", f"masks/{label}/{name}.bmp"
            for target, member in ((image, f"{name}.bmp"), (mask, f"{name}_anno.bmp")):
                if member not in members:
                    raise DataError(f"{archive}: Grade.csv names {name}, but there is no {member}")
                write_atomic(out / target, file.read(members[member]))
            rows.append((image, mask, label, "test" if name.startswith("test") else "train"))
    if seed is not None:
        return _write_table(out, _hold_out(rows, seed))
    published = {f"train_{number}" for number in GLAS_VALID}
    return _write_table(out, [(*row[:3], "valid") if PurePosixPath(row[0]).stem in published else row for row in rows])


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
    for name, data in _members(archive, ".txt"):
        lines = [line.split(maxsplit=1) for line in data.decode().splitlines() if line.strip()]
        tables[name] = {line[0]: line[1].strip() for line in lines if len(line) > 1}
    wanted = ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt")
    if missing := [name for name in wanted if name not in tables]:
        raise DataError(f"{archive}: holds no {' and no '.join(missing)}; give CUB_200_2011.tgz")
    names, numbers, classes, training = (tables[name] for name in wanted)
    labels = {name: classes[numbers[key]] for key, name in names.items()}
    split = {name: "train" if training[key] == "1" else "test" for key, name in names.items()}
    images = _write_members(archive, ".jpg", {PurePosixPath(name).name: name for name in names.values()}, out)
    drawn = _write_members(masks, ".png", {f"{PurePosixPath(name).stem}.png": name for name in names.values()}, out)
    for where, found in ((archive, images), (masks, drawn)):
        if lacking := sorted(set(labels) - set(found)):
            raise DataError(f"{where}: {len(lacking)} images are not in it, such as {lacking[0]}; download it again")
    rows = [(images[name], drawn[name], labels[name], split[name]) for name in sorted(labels)]
    return _write_table(out, _hold_out(rows, seed))


def _write_members(archive: Path, suffix: str, wanted: Mapping[str, str], out: Path) -> dict[str, str]:
    """Write the wanted images, or their masks, below `out`; give the files' names by the images'."""
    found: dict[str, str] = {}
    for name, data in _members(archive, suffix):
        if name not in wanted:
            continue
        label = PurePosixPath(wanted[name]).parent.name
        if suffix == ".png":
            target = f"masks/{label}/{name}"
            write_atomic(out / target, encode_png(to_grey(decode_grey(data) > CUB_FOREGROUND)))
        else:
            target = f"images/{label}/{name}"
            write_atomic(out / target, data)
        found[wanted[name]] = target
    return found


def _members(archive: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Go through a tar archive; give name, without its folder, and content of the files with that suffix."""
    with _reading(archive), tarfile.open(archive, "r|*") as file:
        for member in file:
            path = PurePosixPath(member.name)
            if member.isfile() and path.suffix.lower() == suffix and not path.name.startswith("."):
                content = file.extractfile(member)
                yield path.name, content.read() if content else b""


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


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into one line."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{archive}: no such file") from None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, UnicodeDecodeError):
        raise DataError(f"{archive}: is no such archive, or cut short; download it again") from None
