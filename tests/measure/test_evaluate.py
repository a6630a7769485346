"""A model file measured: every figure against one computed from the predictions, and what cannot be measured."""

import csv
import json
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Cli, assert_refused
from pictures import encoded, picture
from tables import rewrite
from torchmetrics.functional.classification import binary_average_precision, multiclass_calibration_error

from alserve import Predictor
from alserve.drawing import contact_sheet, panels
from alserve.files import write_atomic
from alserve.images.codec import decode
from alserve.measure.dataset import Sample, load_dataset
from alserve.measure.evaluate import WORST, ClassFigures, Figures, evaluate, measure
from alserve.measure.metrics import BINS, dice, iou
from training.data.synthetic import draw_dataset

PER_CLASS = 6


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn tissue, all of it in split "test"; one image of each class has no mask."""
    out = tmp_path_factory.mktemp("data")
    path = draw_dataset(out, seed=4, train_per_class=PER_CLASS - 1, test_per_class=1, size=(96, 128))
    bare = {"mask": "", "split": "test"}
    return rewrite(path, path.name, lambda line: line | (bare if line["split"] == "test" else {"split": "test"}))


@pytest.fixture(scope="module")
def samples(table: Path) -> tuple[Sample, ...]:
    return load_dataset(table).split("test")


@pytest.fixture(scope="module")
def figures(predictor: Predictor, samples: tuple[Sample, ...]) -> Figures:
    return measure(predictor, samples)


def test_means_over_images_and_over_each_class(
    predictor: Predictor, samples: tuple[Sample, ...], figures: Figures
) -> None:
    rows = []
    for sample in samples:
        image, truth = sample.read()
        prediction = predictor.predict(image)
        found = None if truth is None else (dice(prediction.mask(), truth), iou(prediction.mask(), truth))
        rows.append((sample, prediction.label == predictor.spec.classes[sample.label], found))
    assert (figures.images, figures.masks) == (2 * PER_CLASS, 2 * PER_CLASS - 2)
    assert list(figures.classes) == list(predictor.spec.classes)
    for name, one in [(None, figures), *figures.classes.items()]:
        members = [row for row in rows if name in {None, predictor.spec.classes[row[0].label]}]
        measured = np.array([row[2] for row in members if row[2] is not None])
        assert (one.images, one.masks) == (len(members), len(measured))
        assert one.accuracy == pytest.approx(np.mean([row[1] for row in members]))
        assert [one.dice, one.iou] == pytest.approx(measured.mean(axis=0).tolist())
    low, high = figures.dice_interval or (1, 0)
    assert low < (figures.dice or 0) < high
    shares = [truth.mean() for sample in samples for _, truth in [sample.read()] if truth is not None]
    assert figures.dice_of_everything == pytest.approx(np.mean([2 * share / (1 + share) for share in shares]))
    ranked = sorted((row[2][0], row[0].name) for row in rows if row[2] is not None)
    assert [(case.dice, case.name) for case in figures.worst] == ranked[:WORST]
    assert (figures.foreground_dice, figures.with_foreground) == (figures.dice, figures.masks)  # none is empty
    assert figures.foreground_dice_interval == figures.dice_interval
    assert (figures.empty, figures.false_alarms, figures.auroc, figures.dice_of_nothing) == (0, None, None, 0)
    assert figures.largest_false_alarms == []


def test_pixels_are_those_of_all_images_together(
    predictor: Predictor, samples: tuple[Sample, ...], figures: Figures
) -> None:
    truths, maps, scores = [], {"mask": [], "cam": []}, []
    for sample in samples:
        image, truth = sample.read()
        prediction = predictor.predict(image)
        scores.append(prediction.class_scores)
        if truth is not None:
            truths.append(truth.ravel())
            maps["mask"].append(prediction.probability().ravel())
            maps["cam"].append(prediction.cam().ravel())
    right = np.concatenate(truths)
    for name, found in (("mask", figures.pxap_mask), ("cam", figures.pxap_cam)):
        values = torch.from_numpy(np.concatenate(maps[name]))
        truth = torch.from_numpy(right.astype(np.int64))
        assert found == pytest.approx(float(binary_average_precision((values * BINS).floor() / BINS, truth)), abs=1e-5)
        assert found == pytest.approx(float(binary_average_precision(values, truth)), abs=0.005)
    values = np.concatenate(maps["mask"])
    bins = np.minimum((values * 15).astype(int), 14)
    error = sum(abs(right[bins == b].sum() - values[bins == b].sum()) for b in range(15)) / len(values)
    assert figures.ece_mask == pytest.approx(error, abs=1e-4)
    labels = torch.tensor([sample.label for sample in samples])
    known = multiclass_calibration_error(torch.from_numpy(np.stack(scores)), labels, 2, n_bins=15)
    assert figures.ece_scores == pytest.approx(float(known), abs=1e-5)


def test_memory_does_not_grow_with_the_images(predictor: Predictor, samples: tuple[Sample, ...]) -> None:
    def peak(times: int) -> int:
        tracemalloc.start()
        measure(predictor, samples * times)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    pixels = samples[0].read()[0].nbytes
    measure(predictor, samples)  # what is made once is made before
    assert peak(6) - peak(1) < 5 * len(samples) * pixels / 3


def test_the_command_prints_writes_and_draws(
    cli: Cli, predictor: Predictor, table: Path, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    sheet, report = tmp_path / "sub" / "worst.png", tmp_path / "figures.json"
    code, said, noted = cli("evaluate", predictor.engine.path, table, "--json", report, "--worst", sheet)
    assert code == 0
    figures = Figures.model_validate_json(report.read_text())
    assert {"dice", "iou", "accuracy", "images"} <= json.loads(report.read_text()).keys()
    for value in (figures.dice, figures.pxap_mask, figures.pxap_cam, figures.ece_mask, figures.classes["regular"].iou):
        assert f"{value:.4f}" in said
    assert "95% interval" in said
    assert not any(words in said for words in ("false alarms", "all images", "empty"))  # there are none
    assert "irregular" in said
    assert str(sheet) in noted
    rows = []
    for case in figures.worst:
        image, truth = samples[[sample.name for sample in samples].index(case.name)].read()
        prediction = predictor.predict(image)
        pictures = panels(image, prediction.cam(), prediction.mask(), truth)
        missed = "" if case.found else ", not found"
        rows.append((f"{case.name}  Dice {case.dice:.3f}{missed}", pictures))
    np.testing.assert_array_equal(decode(sheet.read_bytes()), contact_sheet(rows))


def test_from_python(
    predictor: Predictor, table: Path, tmp_path: Path, figures: Figures, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "worst.png"
    assert evaluate(str(predictor.engine.path), str(table), worst=str(sheet)) == figures
    assert sheet.is_file()
    assert not capsys.readouterr().out


def test_fewer_than_ten_images_are_drawn(cli: Cli, predictor: Predictor, table: Path, tmp_path: Path) -> None:
    single, sheet = load_dataset(table).samples[-1], tmp_path / "worst.jpg"
    write_atomic(tmp_path / "one.csv", f"image,label,mask,split\n{single.image},regular,{single.mask},test\n".encode())
    assert cli("evaluate", predictor.engine.path, tmp_path / "one.csv", "--worst", sheet)[0] == 0
    height, width = decode(sheet.read_bytes()).shape[:2]
    assert height < width / 3  # one row


def test_one_class_of_the_models(cli: Cli, predictor: Predictor, table: Path, tmp_path: Path, figures: Figures) -> None:
    """A folder that holds the model's second class alone: it is found by name, and the other class is empty."""
    lines = [line for line in table.read_text().splitlines() if ",irregular," not in line]
    only = table.with_name("only.csv")
    write_atomic(only, "\n".join(lines).encode())
    assert cli("evaluate", predictor.engine.path, only, "--json", tmp_path / "figures.json")[0] == 0
    found = Figures.model_validate_json((tmp_path / "figures.json").read_text())
    assert found.classes["regular"] == figures.classes["regular"]
    assert found.classes["irregular"].model_dump() == {
        **dict.fromkeys(ClassFigures.model_fields),
        **dict.fromkeys(("images", "masks", "with_foreground", "empty"), 0),
    }


def test_without_any_mask(cli: Cli, predictor: Predictor, table: Path, tmp_path: Path, figures: Figures) -> None:
    bare = table.with_name("bare.csv")
    lines = [f"{line['image']},{line['label']},test" for line in csv.DictReader(table.open())]
    write_atomic(bare, "\n".join(["image,label,split", *lines]).encode())
    code, said, _ = cli("evaluate", predictor.engine.path, bare, "--json", tmp_path / "figures.json")
    assert code == 0
    found = json.loads((tmp_path / "figures.json").read_text())
    pixels = ("dice", "dice_interval", "dice_of_everything", "iou", "pxap_mask", "pxap_cam", "ece_mask")
    assert [found[name] for name in pixels] == [None] * len(pixels)
    assert (found["accuracy"], found["ece_scores"]) == (figures.accuracy, figures.ece_scores)
    assert (found["masks"], found["worst"]) == (0, [])
    assert "nan" not in said.lower()
    sheet = tmp_path / "worst.png"
    assert_refused(cli("evaluate", predictor.engine.path, bare, "--worst", sheet), "bare.csv", "no image", "--masks")
    assert not sheet.exists()


def test_refused(cli: Cli, predictor: Predictor, table: Path, tmp_path: Path) -> None:
    model = predictor.engine.path
    assert_refused(cli("evaluate", model, table, "--split", "valid"), "no image in split 'valid'", "test")
    assert_refused(cli("evaluate", model, table, "--worst", tmp_path / "worst.txt"), "worst.txt", ".png, .jpg")
    for name in ("regular/1.png", "other/1.png"):
        write_atomic(tmp_path / "data" / name, encoded(picture(40, 60)))
    found = cli("evaluate", model, tmp_path / "data", "--split", "train")
    assert_refused(found, "its classes are other, regular", "the model's are irregular, regular")
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


@pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="file names are text there")
def test_names_that_are_no_text(cli: Cli, predictor: Predictor, tmp_path: Path) -> None:
    name = os.fsdecode(b"regular/\xff\n.png")
    write_atomic(tmp_path / "data" / name, encoded(picture(40, 60)))
    write_atomic(tmp_path / "masks" / name, encoded(np.eye(40, 60, dtype=np.uint8)))
    outputs = ("--json", tmp_path / "f.json", "--worst", tmp_path / "worst.png")
    words = ("--masks", tmp_path / "masks", "--split", "train", *outputs)
    assert cli("evaluate", predictor.engine.path, tmp_path / "data", *words)[0] == 0
    (worst,) = json.loads((tmp_path / "f.json").read_text())["worst"]
    assert worst["name"] == r"regular/\udcff\n.png"
    assert (tmp_path / "worst.png").is_file()


def test_a_mask_of_the_wrong_size_is_refused(cli: Cli, predictor: Predictor, tmp_path: Path) -> None:
    write_atomic(tmp_path / "data" / "regular" / "1.png", encoded(picture(40, 60)))
    write_atomic(tmp_path / "masks" / "regular" / "1.png", encoded(picture(41, 60)))
    words = ("evaluate", predictor.engine.path, tmp_path / "data", "--masks", tmp_path / "masks", "--split", "train")
    assert_refused(cli(*words), "masks/regular/1.png", "60 x 41", "60 x 40")
