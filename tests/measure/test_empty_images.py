"""Figures where images are rightly empty: silence is not rewarded, what is missed and what is imagined is said."""

import csv
from pathlib import Path

import numpy as np
import pytest
from command import Cli
from pictures import encoded
from tables import rewrite
from torch import tensor
from torchmetrics.functional.classification import binary_auroc

from alserve import Predictor
from alserve.files import write_atomic
from alserve.images.codec import decode, read_image
from alserve.measure.dataset import Sample, load_dataset
from alserve.measure.evaluate import ClassFigures, Figures, measure
from alserve.measure.metrics import dice, mean_interval, share_interval
from alserve.measure.tables import describe_failures
from alserve.modelfile import write_metadata
from training.data.synthetic import draw_dataset

PER_CLASS = 5
SIZE = (96, 128)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn tissue; of every class two images are said to be empty, of which one is of one colour."""
    out = tmp_path_factory.mktemp("data")
    path = draw_dataset(out, seed=4, train_per_class=PER_CLASS, test_per_class=0, size=SIZE)
    lines = list(csv.DictReader(path.open()))
    for label in ("irregular", "regular"):
        for number, line in enumerate([line for line in lines if line["label"] == label][:2]):
            shape = read_image(out / line["image"]).shape
            write_atomic(out / line["mask"], encoded(np.zeros(shape[:2], np.uint8)))
            if number:
                write_atomic(out / line["image"], encoded(np.full(shape, 255, np.uint8)))
    return rewrite(path, path.name, lambda line: line | {"split": "test"})


@pytest.fixture(scope="module")
def samples(table: Path) -> tuple[Sample, ...]:
    return load_dataset(table).split("test")


@pytest.fixture(scope="module")
def figures(predictor: Predictor, samples: tuple[Sample, ...]) -> Figures:
    return measure(predictor, samples)


def test_every_figure_is_the_one_computed_from_the_predictions(
    predictor: Predictor, samples: tuple[Sample, ...], figures: Figures
) -> None:
    rows = []
    for sample in samples:
        image, truth = sample.read()
        assert truth is not None
        prediction = predictor.predict(image)
        rows.append((sample, truth, prediction.mask(), float(prediction.probability().max())))
    for name, one in [(None, figures), *figures.classes.items()]:
        members = [row for row in rows if name in {None, predictor.spec.classes[row[0].label]}]
        full = [row for row in members if row[1].any()]
        empty = [row for row in members if not row[1].any()]
        dices = [dice(mask, truth) for _, truth, mask, _ in full]
        found = [bool((mask & truth).any()) for _, truth, mask, _ in full]
        alarms = [bool(mask.any()) for _, _, mask, _ in empty]
        assert (one.with_foreground, one.empty, one.masks) == (len(full), len(empty), len(members))
        assert one.foreground_dice == pytest.approx(np.mean(dices))
        assert one.foreground_dice_interval == pytest.approx(mean_interval(dices))
        assert (one.found, one.false_alarms) == pytest.approx((np.mean(found), np.mean(alarms)))
        assert one.found_interval == share_interval(sum(found), len(found))
        assert one.false_alarms_interval == share_interval(sum(alarms), len(alarms))
        assert one.dice == pytest.approx((sum(dices) + len(alarms) - sum(alarms)) / len(members))
    truths = tensor([int(row[1].any()) for row in rows])
    assert figures.auroc == pytest.approx(float(binary_auroc(tensor([row[3] for row in rows]), truths)), abs=1e-6)
    assert figures.dice_of_nothing == pytest.approx(4 / len(rows))
    shares = [row[1].mean() for row in rows]
    everything = [2 * share / (1 + share) for share in shares]
    assert figures.dice_of_everything == pytest.approx(np.mean(everything))
    assert figures.foreground_dice_of_everything == pytest.approx(np.mean([value for value in everything if value]))


def test_the_worst_have_foreground_and_false_alarms_stand_beside(
    predictor: Predictor, samples: tuple[Sample, ...], figures: Figures
) -> None:
    truths = {sample.name: sample.read() for sample in samples}
    assert len(figures.worst) == 2 * PER_CLASS - 4
    assert all(truth is not None and truth.any() for _, truth in (truths[case.name] for case in figures.worst))
    assert figures.largest_false_alarms
    areas = [float(predictor.predict(truths[one.name][0]).mask().mean()) for one in figures.largest_false_alarms]
    assert [one.area for one in figures.largest_false_alarms] == sorted(areas, reverse=True)
    assert min(areas) > 0


def test_the_command_leads_with_images_that_have_foreground(
    cli: Cli, predictor: Predictor, table: Path, figures: Figures, tmp_path: Path
) -> None:
    sheet, report = tmp_path / "worst.png", tmp_path / "figures.json"
    code, said, noted = cli("evaluate", predictor.engine.path, table, "--json", report, "--worst", sheet)
    assert code == 0
    assert Figures.model_validate_json(report.read_text()) == figures
    order = ["Dice of images with foreground", "found", "false alarms", "area under ROC", "Dice of all images"]
    places = [said.index(words) for words in (*order, "of an empty mask", "accuracy")]
    assert places == sorted(places)
    assert f"{figures.foreground_dice:.4f}" in said
    assert f"of {figures.with_foreground} " in said
    alarms = len(figures.largest_false_alarms)
    assert f"the {len(figures.worst)} images of the lowest Dice and" in noted
    assert "false alarm" in noted
    height, width = decode(sheet.read_bytes()).shape[:2]
    assert height / width == pytest.approx((len(figures.worst) + alarms) * 0.21, rel=0.3)


def test_nothing_to_draw_is_said(cli: Cli, predictor: Predictor, tmp_path: Path) -> None:
    """One image, rightly empty, of a model that stays silent: a threshold that no probability is above."""
    silent = tmp_path / "silent.onnx"
    spec = predictor.spec.model_copy(update={"threshold": 1.0})
    silent.write_bytes(write_metadata(predictor.engine.path.read_bytes(), spec))
    write_atomic(tmp_path / "data" / "regular" / "1.png", encoded(np.full((*SIZE, 3), 255, np.uint8)))
    write_atomic(tmp_path / "masks" / "regular" / "1.png", encoded(np.zeros(SIZE, np.uint8)))
    words = ("--masks", tmp_path / "masks", "--split", "train", "--worst", tmp_path / "worst.png", "--no-self-check")
    code, said, noted = cli("evaluate", silent, tmp_path / "data", *words)
    assert code == 0
    assert "worst.png is not written: no image has foreground" in noted
    assert not (tmp_path / "worst.png").exists()
    assert "nan" not in said.lower()
    assert "0 of 1 " in said  # the note may go on in the next line


def test_where_a_model_fails_is_said_in_words() -> None:
    def one(**values: float) -> ClassFigures:
        return ClassFigures.model_validate({"images": 9, "masks": 9, "accuracy": 1, "dice": 1, "iou": 1, **values})

    classes = {
        "fine": one(with_foreground=9, found=8 / 9),
        "few": one(with_foreground=46, found=3 / 46),
        "none": one(with_foreground=7, found=0),
        "empty": one(empty=10, false_alarms=0.6),
        "quiet": one(empty=10, false_alarms=0.5),
        "mistaken": one(accuracy=6 / 9),
        "seldom": one(accuracy=7 / 9),
    }
    assert describe_failures(classes) == [
        "none: none of 7 images with foreground is found.",
        "few: 3 of 46 images with foreground are found.",
        "empty: false alarms on 6 of 10 empty images.",
        "mistaken: 3 of 9 images are taken for another class.",
    ]
