"""The official archives, made small: what comes out is a data set; what is damaged is one line."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, picture

from alserve.errors import DataError
from training.archives import GLAS_VALID, unpack_cub, unpack_glas
from training.dataset import Dataset, load_dataset

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
    dataset = load_dataset(unpack_cub(*cub, tmp_path / "out"))
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
        unpack_cub(*cub, out)
    with pytest.raises(DataError, match="no such file"):
        unpack_glas(tmp_path / "none.zip", out)
    with pytest.raises(DataError, match=r"holds no images.txt"):
        unpack_cub(cub[1], cub[1], out)
    assert not (out / "data.csv").exists()
