"""The official archives, made small: what comes out is a data set; what is damaged is one line."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Cli, assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, picture

from alserve.errors import DataError
from alserve.measure.dataset import Dataset, load_dataset
from training.data.archives import MOST_BYTES
from training.data.importers.cub import unpack_cub
from training.data.importers.glas import GLAS_VALID, unpack_glas

GLAS_NAMES = [*(f"train_{number}" for number in range(1, 11)), "testA_1", "testB_1"]


@pytest.fixture
def glas(tmp_path: Path) -> Path:
    lines = ["name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    path = tmp_path / "glas.zip"
    with zipfile.ZipFile(path, "w") as file:
        for number, name in enumerate(GLAS_NAMES):
            lines.append(f"{name}, {number}, {' benign' if number % 2 else 'malignant'}, adenomatous")
            file.writestr(f"Warwick QU Dataset/{name}.bmp", encoded(picture(20, 30, number), "BMP"))
            glands = np.zeros((20, 30), np.uint8)
            glands[:5], glands[10:15] = 1, 7  # numbered glands
            file.writestr(f"Warwick QU Dataset/{name}_anno.bmp", encoded(glands, "BMP"))
        file.writestr("Warwick QU Dataset/Grade.csv", "\r\n".join(lines))
        file.writestr("__MACOSX/Warwick QU Dataset/Grade.csv", "x")
    return path


@pytest.fixture
def cub(tmp_path: Path) -> tuple[Path, Path]:
    names = [f"{label:03}.Bird_{label}/Bird_{number:04}_{label}.jpg" for label in (1, 2) for number in range(10)]
    tables = {
        "images.txt": names,
        "image_class_labels.txt": [str(int(name[:3])) for name in names],
        "train_test_split.txt": [str(int(number % 10 < 5)) for number in range(20)],
    }
    files = {
        f"CUB_200_2011/{table}": "".join(f"{number} {text}\n" for number, text in enumerate(lines, 1)).encode()
        for table, lines in tables.items()
    }
    files["CUB_200_2011/classes.txt"] = b"1 001.Bird_1\n2 002.Bird_2\n"
    files |= {f"CUB_200_2011/images/{name}": encoded(picture(20, 30, len(name)), "JPEG") for name in names}
    votes = np.repeat(np.array([[0, 51, 102, 153, 204, 255]], np.uint8), 5, axis=1).repeat(20, axis=0)
    masks = {f"segmentations/{Path(name).with_suffix('.png')}": encoded(votes) for name in names}
    return _tar(tmp_path / "CUB_200_2011.tgz", files), _tar(tmp_path / "segmentations.tgz", masks)


def _tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def names(dataset: Dataset, split: str) -> set[str]:
    return {Path(sample.name).stem for sample in dataset.split(split)}


def test_glas_with_the_published_split(glas: Path, tmp_path: Path) -> None:
    dataset = load_dataset(unpack_glas(glas, tmp_path / "out"))
    assert dataset.classes == ("benign", "malignant")
    assert names(dataset, "test") == {"testA_1", "testB_1"}
    assert names(dataset, "valid") == {"train_2", "train_5"} == {f"train_{n}" for n in GLAS_VALID if n <= 10}
    assert len(dataset.split("train")) == 8
    for _, mask in dataset.read_all():
        assert mask is not None
        assert mask.mean() == 0.5


def test_glas_with_a_seeded_split(glas: Path, tmp_path: Path) -> None:
    splits = [names(load_dataset(unpack_glas(glas, tmp_path / f"{i}", seed=i % 3)), "valid") for i in range(4)]
    assert [len(split) for split in splits] == [2] * 4
    assert splits[0] == splits[3]
    assert splits[0] != splits[1] or splits[0] != splits[2]


def test_cub(cub: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = load_dataset(unpack_cub(cub[0], tmp_path / "out", masks=cub[1]))
    assert dataset.classes == ("001.Bird_1", "002.Bird_2")
    assert [len(dataset.split(split)) for split in ("train", "valid", "test")] == [8, 2, 10]
    assert {sample.label for sample in dataset.split("valid")} == {0, 1}
    for _, mask in dataset.read_all():
        assert mask is not None
        assert mask.mean() == 0.5  # three of six values are more than half of the votes


def test_damaged_archives_leave_no_data_set(glas: Path, cub: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for path in (glas, cub[0]):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"glas\.zip: .*cut short"):
        unpack_glas(glas, out)
    with pytest.raises(DataError, match=r"CUB_200_2011\.tgz: .*(cut short|holds no)"):
        unpack_cub(cub[0], out, masks=cub[1])
    with pytest.raises(DataError, match="no such file"):
        unpack_glas(tmp_path / "none.zip", out)
    with pytest.raises(DataError, match=r"holds no images.txt"):
        unpack_cub(cub[1], out, masks=cub[1])
    assert not (out / "data.csv").exists()


def zipped(path: Path, files: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:  # type: ignore[arg-type]
        for name, data in files.items():
            file.writestr(name, data)
    return path


def glas_with(path: Path, *, grades: str = "name,grade (GlaS)\na,benign\n", **options: Any) -> Path:
    image = encoded(picture(20, 30), "BMP")
    files = {"a.bmp": image, "a_anno.bmp": image, **options.pop("files", {}), "Grade.csv": grades.encode()}
    return zipped(path, files, **options)


def patched(path: Path, *, flag: int = 0, method: int = 8) -> Path:
    """Say of every file of a zip that it is encrypted, or packed in some way."""
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(signature)
        while start >= 0:
            data[start + place : start + place + 4] = struct.pack("<HH", flag, method)
            start = data.find(signature, start + 1)
    path.write_bytes(data)
    return path


HEADER = "name,grade (GlaS)\n"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), ["is no such archive"]),
        (lambda path: path.mkdir(), ["no regular one"]),
        (os.mkfifo, ["no regular one"]),
        (lambda path: zipped(path, {}), ["holds no Grade.csv"]),
        (lambda path: glas_with(path, grades=""), ["no column 'grade (GlaS)'"]),
        (lambda path: glas_with(path, grades=HEADER), ["names no images"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a\n"), ["no grade in line 2"]),
        (lambda path: glas_with(path, grades=f"{HEADER}b,benign\n"), ["names b, but there is no b.bmp"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a,../../x\n"), ["'images/../../x/a.bmp'", "leads out"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a,/etc\n"), ["two slashes"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a,..\n"), ["leads out"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a,C:x\n"), ["leads out"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a,x\\y\n"), ["backslash"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a,nul\n"), ["Windows"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a,x.\n"), ["Windows"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a,\n"), ["two slashes"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a,x\0\n"), ["control character"]),
        (lambda path: glas_with(path, grades=f"{HEADER}a,x\nb,X\n"), ["'X' and 'x'", "differ by case"]),
        (lambda path: glas_with(path, grades=f'{HEADER}a,"{"x" * 200_000}'), ["is no such archive"]),
        (lambda path: glas_with(path, files={"a.bmp": b"hello"}), ["a.bmp: not an image"]),
        (lambda path: glas_with(path, files={"a_anno.bmp": b""}), ["a_anno.bmp: the file is empty"]),
        (
            lambda path: glas_with(path, files={"a.bmp": bytes(MOST_BYTES + 1)}, compression=zipfile.ZIP_DEFLATED),
            ["a.bmp holds more than 64 MiB"],
        ),
        (lambda path: patched(glas_with(path), flag=1), ["Grade.csv is encrypted"]),
        (lambda path: patched(glas_with(path), method=99), ["Grade.csv is packed in an unknown way"]),
        (lambda path: patched(glas_with(path), method=8), ["is no such archive, or cut short"]),
    ],
)
def test_glas_refuses(cli: Cli, tmp_path: Path, make: Callable[[Path], object], words: list[str]) -> None:
    archive = tmp_path / "glas.zip"
    make(archive)
    assert_refused(cli("data", "glas", archive, "--out", tmp_path / "a" / "b" / "out"), "glas.zip", *words)
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.*") if path != archive]
    assert all(path.parts[:5] == ("a", "b", "out", "images", "benign") for path in written), written


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


TABLES = {
    "images.txt": b"1 a/1.jpg\n",
    "image_class_labels.txt": b"1 1\n",
    "classes.txt": b"1 a\n",
    "train_test_split.txt": b"1 1\n",
}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["is no such archive"]),
        (gzip.compress(b"", mtime=0), ["is no such archive"]),
        (gzip.compress(entry("a.txt", 9), mtime=0), ["is no such archive"]),
        (gzip.compress(entry("a.txt", 9), mtime=0)[:-9], ["is no such archive"]),
        (gzip.compress(entry("a.txt", 1 << 40), mtime=0), ["holds more than 8 GiB"]),
        (
            gzip.compress(entry("a.txt", MOST_BYTES + 1) + bytes(MOST_BYTES + 1), mtime=0),
            ["a.txt holds more than 64 MiB"],
        ),
        (gzip.compress(entry("L", 1 << 30, tarfile.GNUTYPE_LONGNAME) + bytes(1 << 20), mtime=0), ["cub.tgz: "]),
        (
            gzip.compress(entry("x", 99, tarfile.XHDTYPE) + b"99999999999999999999 a=b\n".ljust(512), mtime=0),
            ["cub.tgz: "],
        ),
        (gzip.compress(entry("L", 9, tarfile.GNUTYPE_LONGNAME) * 5000, mtime=0), ["cub.tgz: "]),
        (gzip.compress(b"hello" * 500, mtime=0), ["is no such archive"]),
        ({**TABLES, "image_class_labels.txt": b"1 7\n"}, ["no class or split of image 1"]),
        ({**TABLES, "train_test_split.txt": b""}, ["no class or split of image 1"]),
        ({**TABLES, "images.txt": b""}, ["name no images"]),
        ({**TABLES, "images.txt": b"1 ../1.jpg\n", "1.jpg": encoded(picture(20, 30), "JPEG")}, ["leads out"]),
        ({**TABLES, "images.txt": b"1 x/CON.jpg\n", "CON.jpg": encoded(picture(20, 30), "JPEG")}, ["Windows"]),
        ({**TABLES, "1.jpg": b"hello"}, ["1.jpg: not an image"]),
        ({**TABLES, "classes.txt": b"1 \xff\n"}, ["is no such archive"]),
    ],
)
def test_cub_refuses(
    cli: Cli, cub: tuple[Path, Path], tmp_path: Path, data: bytes | dict[str, bytes], words: list[str]
) -> None:
    archive = tmp_path / "cub.tgz"
    _tar(archive, data) if isinstance(data, dict) else archive.write_bytes(data)
    out = tmp_path / "a" / "out"
    assert_refused(cli("data", "cub", archive, "--masks", cub[1], "--out", out), "cub.tgz", *words)
    assert list(tmp_path.rglob("*.jpg")) == []


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_archive_is_a_data_set_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    archive = glas_with(folder / "glas.zip")
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(content)
    with suppress(DataError):
        assert unpack_glas(archive, folder / "out").is_file()


def test_the_command_names_the_data_sets(cli: Cli, glas: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert_refused(cli("data", "glass", glas, "--out", out), "unknown data set 'glass'; did you mean glas?", "cub")
    assert_refused(cli("data", "glas", glas, "--out", out, "--masks", glas), "leave --masks out")
    assert not out.exists()
