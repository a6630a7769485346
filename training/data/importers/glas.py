"""GlaS, the gland segmentation challenge of MICCAI 2015: the archive of Warwick-QU."""

import csv
import io
import zipfile
from pathlib import Path, PurePosixPath

from alserve.errors import DataError, OptionError
from alserve.files import write_atomic
from alserve.images.header import read_header
from alserve.measure.dataset import check_classes
from alserve.paths import below
from training.data.archives import as_image, read_member, reading
from training.data.importers import IMPORTERS, Entry, Importer, hold_out, write_table

GLAS_VALID = frozenset({2, 5, 12, 18, 24, 26, 36, 38, 51, 52, 54, 63, 65, 68, 72, 74, 77, 83})
"""Numbers of the images train_N that the published split 0, fold 0, validates on."""


def unpack_glas(archive: Path, out: Path, *, masks: Path | None = None, seed: int | None = None) -> Path:
    """Turn the Warwick-QU zip (GlaS) into a data set.

    See `Unpack`. Masks are in the archive; split "valid" is by default that of the published split 0, fold 0.
    """
    if masks is not None:
        raise OptionError(f"{masks}: the masks of glas are in its archive; leave --masks out")
    with reading(archive), zipfile.ZipFile(archive) as file:
        members = {
            PurePosixPath(entry.filename).name: entry
            for entry in file.infolist()
            if not entry.filename.startswith("__MACOSX")
        }
        if "Grade.csv" not in members:
            raise DataError(f"{archive}: holds no Grade.csv; give the archive of the GlaS challenge (Warwick-QU)")
        grades = _grades(archive, read_member(archive, file, members["Grade.csv"]).decode())
        rows: list[Entry] = []
        for name, label in sorted(grades.items()):
            image, mask = f"images/{label}/{name}.bmp", f"masks/{label}/{name}.bmp"
            for target, member in ((image, f"{name}.bmp"), (mask, f"{name}_anno.bmp")):
                if member not in members:
                    raise DataError(f"{archive}: Grade.csv names {name}, but there is no {member}")
                path = below(out, target, archive)
                data = read_member(archive, file, members[member])
                as_image(archive, member, read_header, data)
                write_atomic(path, data)
            rows.append(Entry(image, mask, label, "test" if name.startswith("test") else "train"))
    if seed is not None:
        return write_table(out, hold_out(rows, seed))
    published = {f"train_{number}" for number in GLAS_VALID}
    return write_table(
        out, [row._replace(split="valid") if PurePosixPath(row.image).stem in published else row for row in rows]
    )


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


IMPORTERS.add("glas")(Importer(description="Warwick-QU, GlaS challenge: the zip", unpack=unpack_glas))
