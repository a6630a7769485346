"""Data sets as labs have them, and every way in which they can be wrong."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import pytest
from pictures import encoded, picture

from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.measure.dataset import Dataset, load_dataset
from training.annotate.oracle import SimulatedOracle
from training.settings import Settings
from training.train import check_budget

CSV = "image,label,mask,split\nscans/1.png,benign,drawn/1.png,train\nscans/2.png,malignant,,test\n"


def draw(path: Path, seed: int = 0) -> None:
    write_atomic(path, encoded(picture(20, 30, seed)))


def draw_mask(path: Path, shape: tuple[int, int] = (20, 30), value: int = 255) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[:5] = value
    write_atomic(path, encoded(mask))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, two images each, one of them in a subfolder."""
    for index, name in enumerate(("benign/1.png", "benign/deep/2.png", "malignant/1.png", "malignant/3.png")):
        draw(tmp_path / "data" / name, index)
    return tmp_path / "data"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV with a mask and two splits."""
    for index in (1, 2):
        draw(tmp_path / "csv" / "scans" / f"{index}.png", index)
    draw_mask(tmp_path / "csv" / "drawn" / "1.png")
    write_atomic(tmp_path / "csv" / "data.csv", CSV.encode())
    return tmp_path / "csv" / "data.csv"


def assert_bad(data: Path, *words: str, masks: Path | None = None) -> None:
    with pytest.raises(DataError) as caught:
        list(load_dataset(data, masks).read_all())
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_folder_per_class(folder: Path) -> None:
    (folder / ".git").mkdir()
    write_atomic(folder / "benign" / "notes.txt", b"no image")
    write_atomic(folder / "benign" / "._1.png", b"what a Mac leaves")
    dataset = load_dataset(folder)
    assert dataset.classes == ("benign", "malignant")
    assert [(sample.name, sample.label, sample.split, sample.mask) for sample in dataset.samples] == [
        ("benign/1.png", 0, "train", None),
        ("benign/deep/2.png", 0, "train", None),
        ("malignant/1.png", 1, "train", None),
        ("malignant/3.png", 1, "train", None),
    ]
    np.testing.assert_array_equal(dataset.samples[1].read()[0], picture(20, 30, 1))


def test_folders_of_splits(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(folder, folder.parent / "split" / split)
    dataset = load_dataset(folder.parent / "split")
    assert dataset.classes == ("benign", "malignant")
    assert [sample.name for sample in dataset.split("test")] == [
        f"test/{sample.name}" for sample in load_dataset(folder).samples
    ]
    assert len(dataset.split("train")) == 4
    assert dataset.split("valid") == ()


def test_a_class_may_be_called_train(folder: Path) -> None:
    (folder / "benign").rename(folder / "train")
    assert load_dataset(folder).classes == ("malignant", "train")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_with_paths_relative_to_it(table: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table.write_text(CSV, encoding=encoding)
    monkeypatch.chdir("/")
    dataset = load_dataset(table)
    first, second = dataset.samples
    assert dataset.classes == ("benign", "malignant")
    assert (first.label, first.split, second.label, second.split) == (0, "train", 1, "test")
    mask = first.read()[1]
    assert mask is not None
    assert mask.dtype == np.bool_
    assert mask.sum() == 5 * 30
    assert second.read()[1] is None


def test_a_csv_without_mask_and_split(table: Path) -> None:
    table.write_text("label,image\na,scans/1.png\nb,scans/2.png\n")
    assert [(sample.mask, sample.split) for sample in load_dataset(table).samples] == [(None, "train")] * 2


def test_masks_in_a_mirrored_folder(folder: Path) -> None:
    masks = folder.parent / "masks"
    draw_mask(masks / "benign" / "deep" / "2.tif")
    draw_mask(masks / "malignant" / "1.png")
    found = [sample.mask for sample in load_dataset(folder, masks).samples]
    assert found == [None, masks / "benign" / "deep" / "2.tif", masks / "malignant" / "1.png", None]


@pytest.mark.parametrize("value", [1, 128, 254, 255])
def test_every_value_but_zero_is_foreground(folder: Path, value: int) -> None:
    draw_mask(folder.parent / "masks" / "benign" / "1.png", value=value)
    mask = load_dataset(folder, folder.parent / "masks").samples[0].read()[1]
    assert mask is not None
    assert mask.sum() == 5 * 30


def test_every_image_is_read(folder: Path) -> None:
    assert len(list(load_dataset(folder).read_all())) == 4


def test_a_path_that_is_missing(tmp_path: Path) -> None:
    assert_bad(tmp_path / "none", "none", "no such folder or CSV file")


def test_a_folder_without_classes(tmp_path: Path) -> None:
    assert_bad(tmp_path, str(tmp_path), "no images", "subfolder per class")


def test_an_empty_class_folder(folder: Path) -> None:
    (folder / "empty").mkdir()
    assert_bad(folder, str(folder / "empty"), "no images", "remove the folder")


def test_an_image_outside_the_class_folders(folder: Path) -> None:
    draw(folder / "stray.png")
    assert_bad(folder, "stray.png", "no label", "folder")


def test_an_unknown_split_folder(folder: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(folder, folder.parent / "split" / split)
    assert_bad(folder.parent / "split", "unknown split 'val'", "train, valid, test")


def test_an_unreadable_image(folder: Path) -> None:
    whole = (folder / "benign" / "1.png").read_bytes()
    write_atomic(folder / "benign" / "1.png", whole[: len(whole) // 2])
    assert_bad(folder, str(folder / "benign" / "1.png"), "damaged")


def test_a_mask_of_another_size(folder: Path) -> None:
    mask = folder.parent / "masks" / "benign" / "1.png"
    draw_mask(mask, (30, 20))
    assert_bad(folder, str(mask), "20 x 30", "30 x 20", "must be equal", masks=folder.parent / "masks")


def test_an_unreadable_mask(folder: Path) -> None:
    mask = folder.parent / "masks" / "benign" / "1.png"
    write_atomic(mask, b"hello")
    assert_bad(folder, str(mask), masks=folder.parent / "masks")


def test_a_mask_without_an_image(folder: Path) -> None:
    mask = folder.parent / "masks" / "benign" / "9.png"
    draw_mask(mask)
    assert_bad(folder, str(mask), "no image of the same name", masks=folder.parent / "masks")


def test_two_masks_for_one_image(folder: Path) -> None:
    for suffix in ("png", "tif"):
        draw_mask(folder.parent / "masks" / "benign" / f"1.{suffix}")
    assert_bad(folder, "1.tif", "1.png", "keep one", masks=folder.parent / "masks")


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_of_masks_that_is_empty_or_missing(folder: Path, made: bool) -> None:  # noqa: FBT001
    masks = folder.parent / "masks"
    if made:
        masks.mkdir()
    assert_bad(folder, str(masks), "masks", masks=masks)


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced("label", "class"), ["no column label", "needs image and label"]),
        (replaced("benign", " "), ["line 2", "scans/1.png has no label"]),
        (replaced("scans/2.png", ""), ["line 3", "no image is named"]),
        (replaced(",test", ",holdout"), ["line 3", "unknown split 'holdout'", "train, valid, test"]),
        (replaced("scans/2.png", "scans/9.png"), ["line 3", "no such file", "9.png"]),
        (replaced("drawn/1.png", "drawn/9.png"), ["line 2", "no such file", "9.png"]),
        (replaced("scans/2.png", "scans/1.png"), ["scans/1.png", "listed twice", "keep one"]),
        (replaced("scans/2.png", "./scans/1.png"), ["scans/1.png", "listed twice"]),
        (replaced("scans/2.png", "scans/../scans/1.png"), ["line 3", "listed twice", "scans/../scans/1.png"]),
        (replaced("drawn/1.png", "scans/1.png"), ["line 2", "mask of scans/1.png is its own image"]),
        (replaced("drawn/1.png", "drawn/../scans/2.png"), ["line 2", "mask of scans/1.png is image scans/2.png"]),
        (replaced("malignant", "Benign"), ["'Benign' and 'benign'", "differ by case"]),
        (replaced("malignant", "be\u200bnign"), ["differ by case, spaces or Unicode form"]),
        (replaced("malignant", "b\x1benign"), ["class 'b\\x1benign' has a control character"]),
        (replaced("scans/2.png", "scans"), ["line 3", "no regular one", "scans"]),
        (replaced("scans/2.png", "a\0b"), ["line 3", "no such file"]),
        (replaced("scans/2.png", "a" * 5000), ["line 3", "no such file"]),
        (replaced("label,mask", "label,mask,label"), ["two columns label"]),
        (lambda text: text + '"' + "x" * 200_000, ["cannot be read as a CSV"]),
        (lambda text: text.splitlines()[0], ["no images"]),
        (lambda _: "", ["no column image and no column label"]),
    ],
)
def test_a_bad_csv(table: Path, change: Callable[[str], str], words: list[str]) -> None:
    table.write_text(change(CSV))
    assert_bad(table, str(table), *words)


def test_lines_may_be_short_long_or_empty(table: Path) -> None:
    table.write_text("image,label,mask\nscans/1.png,a\n\nscans/2.png,b,,more,cells\n")
    assert [sample.mask for sample in load_dataset(table).samples] == [None, None]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_one_letter_in_two_unicode_forms_is_one_image(table: Path, form: Literal["NFC", "NFD"]) -> None:
    names = [normalize(other, "scans/\u00e4.png") for other in ("NFC", "NFD")]
    for name in names:
        draw(table.parent / name)
    table.write_text(f"image,label\n{names[0]},a\nscans/1.png,b\n", encoding="utf-8")
    assert len(load_dataset(table).samples) == 2
    table.write_text(f"image,label\n{normalize(form, names[0])},a\n{names[1]},b\n", encoding="utf-8")
    assert_bad(table, "line 3", "listed twice")


def test_links_lead_to_the_same_image_through_folders_but_not_under_another_name(table: Path) -> None:
    scans = table.parent / "scans"
    (table.parent / "linked").symlink_to(scans, target_is_directory=True)
    (scans / "3.png").symlink_to(scans / "1.png")
    (scans / "4.png").hardlink_to(scans / "1.png")
    table.write_text("image,label\nscans/1.png,a\nscans/3.png,b\nscans/4.png,b\n")
    assert len(load_dataset(table).samples) == 3
    table.write_text("image,label\nscans/1.png,a\nlinked/1.png,b\n")
    assert_bad(table, "line 3", "listed twice, as scans/1.png and as linked/1.png")


def test_a_mask_of_two_images_is_said(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text(CSV.replace("malignant,,", "malignant,./drawn/1.png,"))
    load_dataset(table)
    load_dataset(table)
    (line,) = capsys.readouterr().err.splitlines()
    assert "drawn/1.png is the mask of both scans/1.png and scans/2.png" in line


def test_masks_that_are_the_images_are_refused(folder: Path) -> None:
    assert_bad(folder, "the mask of benign/1.png is its own image", masks=folder)


def test_what_is_left_out_is_said_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.heic", "b.HEIC", "c.avif", "deep/photo", ".hidden/x.ppm", "Thumbs/.x.png"):
        write_atomic(folder / "benign" / name, b"x")
    os.mkfifo(folder / "malignant" / "pipe.png")
    draw_mask(folder.parent / "masks" / "benign" / "1.png")
    write_atomic(folder.parent / "masks" / "benign" / "1.pcx", b"x")
    for _ in range(2):
        assert len(load_dataset(folder, folder.parent / "masks").samples) == 4
    masks, images = capsys.readouterr().err.splitlines()[::-1]
    assert "left out 1 .avif, 2 .heic, 1 that are no regular files, 1 without a suffix: the kinds that" in images
    assert "masks: left out 1 .pcx" in masks
    for path in (folder / "malignant").glob("*.png"):
        path.rename(path.with_suffix(".heic"))
    assert_bad(folder, "malignant: this class folder holds no images", "2 .heic")


@pytest.mark.parametrize("name", ["Benign", "benign ", "\uff42enign", "BENIGN"])
def test_class_folders_that_look_alike(folder: Path, name: str) -> None:
    draw(folder / name / "1.png")
    assert_bad(folder, f"'{min('benign', name)}' and '{max('benign', name)}'", "give one another name")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes UTF-8 only")
def test_a_class_that_is_not_utf_8(folder: Path) -> None:
    draw(folder / os.fsdecode(b"b\xff") / "1.png")
    assert_bad(folder, "class 'b\\udcff'", "is not in UTF-8")


def test_a_file_that_changes_its_spelling_is_found_where_case_does_not_count(table: Path) -> None:
    table.write_text("image,label\nscans/1.png,a\nSCANS/1.PNG,b\n")
    if (table.parent / "SCANS").exists():
        assert_bad(table, "line 3", "listed twice")
    else:
        assert_bad(table, "line 3", "no such file")


def test_a_csv_that_is_a_pipe_or_a_folder_of_none(table: Path) -> None:
    table.unlink()
    os.mkfifo(table)
    assert_bad(table, "no such folder or CSV file")


def test_a_csv_that_is_none(table: Path) -> None:
    draw(table)
    assert_bad(table, str(table), "CSV file in UTF-8")


def test_the_fingerprint_tells_data_apart_but_not_places(table: Path, folder: Path) -> None:
    def fingerprint(path: Path) -> str:
        return load_dataset(path).fingerprint()

    first = fingerprint(table)
    moved = table.parent.parent / "moved"
    shutil.copytree(table.parent, moved)
    assert fingerprint(moved / "data.csv") == first
    changes: list[Callable[[], object]] = [
        lambda: draw(moved / "scans" / "2.png", seed=9),
        lambda: draw_mask(moved / "drawn" / "1.png", value=254),
        lambda: (moved / "data.csv").write_text(CSV.replace("test", "train")),
        lambda: (moved / "data.csv").write_text(CSV.replace("malignant", "other")),
        lambda: (moved / "data.csv").write_text(CSV.replace("drawn/1.png", "")),
    ]
    seen = {first, fingerprint(folder)}
    for change in changes:
        change()
        seen.add(fingerprint(moved / "data.csv"))
    assert len(seen) == 2 + len(changes)


def budget(folder: Path, **settings: object) -> Callable[[], None]:
    dataset: Dataset = load_dataset(folder, folder.parent / "masks")
    return lambda: check_budget(dataset, Settings.model_validate(settings), SimulatedOracle())


def test_the_budget(folder: Path) -> None:
    masks = folder.parent / "masks"
    for name in ("benign/1.png", "benign/deep/2.png", "malignant/1.png"):
        draw_mask(masks / name)
    budget(folder, initial=1, rounds=1)()
    budget(folder, method="cams-only")()
    budget(folder, method="all-masks")()
    for settings in ({"initial": 2, "rounds": 1}, {"initial": 1, "rounds": 2}):
        with pytest.raises(DataError, match=r"class malignant has 1 .* the budget is 2 .*--masks"):
            budget(folder, **settings)()
    with pytest.raises(DataError, match="validation-masks"):
        budget(folder, initial=1, rounds=1, validation_masks=True)()


def test_one_class_only(folder: Path) -> None:
    draw_mask(folder.parent / "masks" / "benign" / "1.png")
    shutil.rmtree(folder / "malignant")
    with pytest.raises(DataError, match=r"only one class \(benign\)"):
        budget(folder, initial=1, rounds=1)()


def test_a_class_that_is_only_tested(table: Path) -> None:
    with pytest.raises(DataError, match="class malignant has no image in split 'train'"):
        check_budget(load_dataset(table), Settings(initial=1, rounds=1), SimulatedOracle())
