"""CUB-200-2011, the birds of Caltech-UCSD."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.images.codec import decode_grey, encode_png, to_grey
from alserve.images.header import read_header
from alserve.measure.dataset import check_classes
from alserve.paths import below
from training.data.archives import as_image, members, reading
from training.data.importers import IMPORTERS, Entry, Importer, hold_out, write_table

CUB_FOREGROUND = 127
"""CUB's masks are grey: how many of the annotators took a pixel for bird. Above this value more than half did."""


def unpack_cub(archive: Path, out: Path, *, masks: Path | None = None, seed: int | None = None) -> Path:
    """Turn CUB-200-2011 into a data set; its own test split is kept.

    See `Unpack`. Masks are in segmentations.tgz; the published fold is not in the archive.
    """
    masks = masks or archive.with_name("segmentations.tgz")
    tables: dict[str, dict[str, str]] = {}
    with reading(archive):
        for name, data in members(archive, ".txt"):
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
    rows = [Entry(images[name], drawn[name], labels[name], split[name]) for name in sorted(labels)]
    return write_table(out, hold_out(rows, seed or 0))


def _write_members(archive: Path, suffix: str, wanted: Mapping[str, str], out: Path) -> dict[str, str]:
    """Write the wanted images, or their masks, below `out`; return the files' names by the images'."""
    found: dict[str, str] = {}
    for name, data in members(archive, suffix):
        if name not in wanted:
            continue
        target = f"{'masks' if suffix == '.png' else 'images'}/{PurePosixPath(wanted[name]).parent.name}/{name}"
        path = below(out, target, archive)
        if suffix == ".png":
            grey = as_image(archive, name, decode_grey, data)
            write_atomic(path, encode_png(to_grey(grey > CUB_FOREGROUND)))
        else:
            as_image(archive, name, read_header, data)
            write_atomic(path, data)
        found[wanted[name]] = target
    return found


IMPORTERS.add("cub")(Importer(description="CUB-200-2011: CUB_200_2011.tgz, and segmentations.tgz", unpack=unpack_cub))
