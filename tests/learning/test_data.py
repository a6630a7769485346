"""Training images in memory or in a file: the same to whoever learns from them, and read once."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from drawn import UNTRAINED, settings

from alserve.errors import DataError, RunError
from alserve.measure.dataset import Dataset, load_dataset
from training.data.augmentation import Crops
from training.data.synthetic import draw_dataset
from training.learning import data as module
from training.learning.data import TrainingData, read_images
from training.run.folder import Run
from training.run.pixels import PixelFile
from training.train import train_run


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("data"), seed=5, train_per_class=3, test_per_class=1, size=(64, 96))


@pytest.fixture(scope="module")
def dataset(table: Path) -> Dataset:
    return load_dataset(table)


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep all images in a file, but for the first two."""
    monkeypatch.setattr(module, "IN_MEMORY", 64 * 96 * 3)


def test_few_images_are_kept_in_memory(dataset: Dataset, tmp_path: Path) -> None:
    assert isinstance(read_images(dataset, 64, tmp_path / "file"), list)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_memory")
def test_images_in_a_file_are_those_in_memory(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state" / "file.pixels"
    kept, filed = read_images(dataset, 64), read_images(dataset, 64, path)
    assert isinstance(filed, PixelFile)
    assert f"{path}: keeps the training images at the working size, about 0.0 GB" in capsys.readouterr().err
    assert [image.tolist() for image in filed] == [image.tolist() for image in kept]
    masks = {index: np.full(image.shape[:2], 40 * index, np.uint8) for index, image in enumerate(kept)}
    sequences = []
    for images in (kept, filed):
        data = TrainingData(dataset, images, settings())
        assert [data.shape(index) for index in range(len(data))] == [image.shape[:2] for image in kept]
        crops = Crops([(data.with_pseudo(masks, range(6)), 4)], settings(), steps=2, seed=0)
        sequences.append([{name: value.tolist() for name, value in crops[place].items()} for place in range(8)])
    assert sequences[0] == sequences[1]
    monkeypatch.setattr(Dataset, "read_all", None)  # not read again
    assert len(read_images(dataset, 64, path)) == 6


def test_the_smallest_mask_of_a_class_tells_how_much_its_images_have_at_least(dataset: Dataset) -> None:
    data = TrainingData(dataset, read_images(dataset, 64), settings())
    masks = {index: np.zeros(data.shape(index), np.bool_) for index in range(3)}  # of the first class
    masks[1][:32] = masks[2][:16] = True
    assert [data.labels[index] for index in masks] == [0, 0, 0]
    found = data.with_classes(masks)
    assert {(example.label, example.least) for example in found} == {(0, 0.25), (1, 0.0)}
    assert {example.least for example in data.with_classes()} == {0.0}
    assert all(example.mask is None for example in found)


@pytest.mark.usefixtures("no_memory")
def test_a_damaged_file_is_written_again(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "file.pixels"
    whole = read_images(dataset, 64, path)
    content = path.read_bytes()
    PixelFile.write(tmp_path / "fewer", whole[:5])
    for damaged in (content[: len(content) // 2], b"", (tmp_path / "fewer").read_bytes()):
        path.write_bytes(damaged)
        read_images(dataset, 64, path)
        assert path.read_bytes() == content


@pytest.mark.usefixtures("no_memory")
def test_no_room_is_one_line(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunError, match=r"taken.*cannot be kept there \(.*\); make room"):
        read_images(dataset, 64, tmp_path / "taken" / "file.pixels")

    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000))
    with pytest.raises(RunError, match=r"take about 0.0 GB there while the run lasts, and 0.0 GB are free"):
        read_images(dataset, 64, tmp_path / "file.pixels")
    assert not list(tmp_path.glob("*.pixels"))


def test_the_file_is_named_by_data_and_size(tmp_path: Path) -> None:
    def run(fingerprint: str, shared: Path | None = None) -> Run:
        return Run(
            tmp_path / "run", settings(), source=tmp_path, fingerprint=fingerprint, overwrite=True, shared=shared
        )

    with run("a") as first:
        path = first.image_file(64)
        path.parent.mkdir()
        path.touch()
        path.with_name(f".{path.name}-killed.tmp").touch()
        assert first.image_file(64) == path
        assert path.is_file()
        first.begin()  # what is read before belongs to the new run
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        other = first.image_file(96)
        assert other != path
        assert not path.exists()
        other.touch()
    with run("b") as second:
        assert second.image_file(64) != path
        assert not other.exists()
    shared = tmp_path / "cache"
    shared.mkdir()
    (shared / path.name).touch()
    with run("b", shared) as third:
        assert third.image_file(64).parent == shared
        third.remove_images()
    assert (shared / path.name).is_file()


def spoilt(table: Path, out: Path) -> Path:
    """Copy a data set, and damage its last image but not the beginning of its file."""
    shutil.copytree(table.parent, out)
    image = max((out / "images").rglob("*.jpg"))
    image.write_bytes(image.read_bytes()[:400])
    return out / table.name


@pytest.mark.usefixtures("no_memory")
def test_data_that_cannot_be_read_leave_no_folder_and_replace_no_run(table: Path, tmp_path: Path) -> None:
    given = settings(UNTRAINED, method="cams-only")
    bad = spoilt(table, tmp_path / "bad")
    with pytest.raises(DataError, match=r"\.jpg: "):
        train_run(bad, tmp_path / "run", given)
    assert not (tmp_path / "run").exists()
    with Run(tmp_path / "run", given, source=table, fingerprint="x").begin() as run:
        run.save_theta0({})
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=r"\.jpg: "):
        train_run(bad, tmp_path / "run", given, overwrite=True)
    left = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert left == before
