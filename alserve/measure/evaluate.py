"""Measure a model file as it is served: through ONNX Runtime, at the images' own size."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from alserve.drawing import contact_sheet, panels
from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.images.codec import encode_jpeg, encode_png
from alserve.measure.dataset import Dataset, Sample, load_dataset
from alserve.measure.metrics import CONFIDENCE, BinnedScores, dice, iou, mean_interval
from alserve.parallel import ordered_map
from alserve.paths import printable
from alserve.predictor import Predictor, load
from alserve.runtime.device import available_cores
from alserve.terminal import progress

WORST = 10
"""Number of the images of lowest Dice that are named, and drawn."""

ENCODERS = {".png": encode_png, ".jpg": encode_jpeg, ".jpeg": encode_jpeg}
"""Kinds of picture that a contact sheet is written as, by suffix."""


class ClassFigures(BaseModel):
    """Means over the images of one class; None where there is nothing to take a mean of."""

    images: int
    masks: int
    accuracy: float | None
    dice: float | None
    iou: float | None


class Case(BaseModel):
    """One image with a mask, and how well it was found."""

    name: str
    dice: float


class Figures(BaseModel):
    """Measures over a set of images, 0 to 1; those of pixels over the images that have a mask, None where none has."""

    dice: float | None
    """Mean over images."""
    dice_interval: tuple[float, float] | None
    """95 % bootstrap interval of the mean; None for fewer than two masks."""
    dice_of_everything: float | None
    """Mean Dice of a mask of all pixels: what the model's masks have to exceed."""
    iou: float | None
    """Mean over images."""
    accuracy: float
    pxap_mask: float | None
    """Pixel-wise average precision of the mask's probability, see `BinnedScores.average_precision`."""
    pxap_cam: float | None
    """The same of the CAM as it is served: of the predicted class, on the model's one scale for all images.

    Choe et al. take the true class, which a served model does not know, and stretch each CAM to 0..1 by itself.
    """
    ece_mask: float | None
    """Expected calibration error of the mask's probability, pixel by pixel, see `BinnedScores.calibration_error`."""
    ece_scores: float | None
    """The same of the predicted class's score."""
    images: int
    masks: int
    """Images that have a mask; those without one count for accuracy and `ece_scores` only."""
    classes: dict[str, ClassFigures]
    """By true class."""
    worst: list[Case]
    """The ten images of lowest Dice, the worst first."""


class ImageFigures(NamedTuple):
    """Measures of one image; those of pixels are None where it has no mask."""

    sample: Sample
    right: bool
    dice: float | None = None
    iou: float | None = None
    dice_of_everything: float | None = None


def _compare(
    predictor: Predictor, sample: Sample
) -> tuple[ImageFigures, tuple[BinnedScores, BinnedScores, BinnedScores]]:
    """Return the measures of one image, and the binned values of its best score, its mask's pixels and its CAM's."""
    image, truth = sample.read()
    prediction = predictor.predict(image)
    scores = prediction.class_scores
    right = int(scores.argmax()) == sample.label
    score = BinnedScores.of(scores.max(keepdims=True), np.array([right]))
    if truth is None:
        return ImageFigures(sample, right), (score, BinnedScores(), BinnedScores())
    probability = prediction.probability()
    mask = probability > prediction.spec.threshold
    row = ImageFigures(sample, right, dice(mask, truth), iou(mask, truth), dice(np.ones_like(truth), truth))
    return row, (score, BinnedScores.of(probability, truth), BinnedScores.of(prediction.cam(), truth))


def measure(predictor: Predictor, samples: Sequence[Sample]) -> Figures:
    """Compare predictions with masks and classes, on all cores; no pixels are kept, however many images there are.

    Args:
        predictor: The model, best loaded with `threads=1`.
        samples: Images, at least one, with their classes as indices into the model's.

    Raises:
        DataError: A file cannot be used, or an image and its mask differ in size.
    """
    rows: list[ImageFigures] = []
    binned = score, mask, cam = BinnedScores(), BinnedScores(), BinnedScores()
    with progress(len(samples), "measuring") as show:
        for row, counted in ordered_map(lambda sample: _compare(predictor, sample), samples, available_cores()):
            rows.append(row)
            for total, one in zip(binned, counted, strict=True):
                total.add(one)
            show(len(rows))
    cases = [Case(name=printable(row.sample.name), dice=row.dice) for row in rows if row.dice is not None]
    return Figures(
        **_means(rows).model_dump(),
        dice_interval=mean_interval([case.dice for case in cases]),
        dice_of_everything=_mean([row.dice_of_everything for row in rows if row.dice_of_everything is not None]),
        pxap_mask=mask.average_precision(),
        pxap_cam=cam.average_precision(),
        ece_mask=mask.calibration_error(),
        ece_scores=score.calibration_error(),
        classes={
            name: _means([row for row in rows if row.sample.label == label])
            for label, name in enumerate(predictor.spec.classes)
        },
        worst=sorted(cases, key=lambda case: case.dice)[:WORST],
    )


def _means(rows: Sequence[ImageFigures]) -> ClassFigures:
    dices = [row.dice for row in rows if row.dice is not None]
    return ClassFigures(
        images=len(rows),
        masks=len(dices),
        accuracy=_mean([row.right for row in rows]),
        dice=_mean(dices),
        iou=_mean([row.iou for row in rows if row.iou is not None]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def draw_worst(predictor: Predictor, samples: Sequence[Sample], figures: Figures, path: Path) -> None:
    """Draw the images of the lowest Dice, the worst first: image, CAM, mask and truth in a row.

    Args:
        predictor: The model.
        samples: What was measured.
        figures: What `measure` returned for them, with at least one mask.
        path: The picture to write; its suffix is one of `ENCODERS`.
    """
    by_name = {printable(sample.name): sample for sample in samples}
    rows = []
    for case in figures.worst:
        image, truth = by_name[case.name].read()
        prediction = predictor.predict(image)
        rows.append((f"{case.name}  Dice {case.dice:.3f}", panels(image, prediction.cam(), prediction.mask(), truth)))
    write_atomic(path, ENCODERS[path.suffix.lower()](contact_sheet(rows)))


def evaluate(
    model: Path | str,
    data: Path | str,
    *,
    masks: Path | str | None = None,
    split: str = "test",
    worst: Path | str | None = None,
    self_check: bool = True,
) -> Figures:
    """Measure a model file on one split of a data set.

    Args:
        model: The model file.
        data: See `load_dataset`; classes are found by name, and may be some of the model's only.
        masks: See `load_dataset`.
        split: "train", "valid" or "test".
        worst: A picture to draw the images of lowest Dice in, see `draw_worst`.
        self_check: Refuse a model that computes something else here than the trained network did.

    Raises:
        DataError: The split is empty, a class is none of the model's, or there is nothing to draw for `worst`.
        ModelError: The file is no model.
    """
    predictor = load(Path(model), threads=1, self_check=self_check)
    dataset = load_dataset(Path(data), None if masks is None else Path(masks))
    samples = _samples(dataset, split, predictor.spec.classes)
    if worst is None:
        return measure(predictor, samples)
    picture = Path(worst)
    if picture.suffix.lower() not in ENCODERS:
        raise DataError(f"{picture}: the picture of the worst images ends in one of {', '.join(ENCODERS)}")
    if all(sample.mask is None for sample in samples):
        raise DataError(f"{data}: no image of split '{split}' has a mask, so none is the worst; give --masks")
    figures = measure(predictor, samples)
    draw_worst(predictor, samples, figures, picture)
    return figures


def _samples(dataset: Dataset, split: str, classes: Sequence[str]) -> list[Sample]:
    """Return the images of a split, with their classes as indices into the model's."""
    samples = dataset.split(split)
    if not samples:
        there = ", ".join(sorted({sample.split for sample in dataset.samples}))
        raise DataError(f"{dataset.source}: no image in split '{split}'; choose one of: {there}")
    if not set(dataset.classes) <= set(classes):
        raise DataError(
            f"{dataset.source}: its classes are {', '.join(dataset.classes)}, the model's are {', '.join(classes)}"
        )
    return [replace(sample, label=classes.index(dataset.classes[sample.label])) for sample in samples]


def print_figures(figures: Figures, title: str) -> None:
    """Print two tables: all images together, and class by class."""
    interval = figures.dice_interval
    spread = f"{CONFIDENCE:.0%} interval {_number(interval[0])} to {_number(interval[1])}" if interval else ""
    rows = [
        ("Dice", figures.dice, spread),
        ("Dice of a mask of everything", figures.dice_of_everything, "what a model has to beat"),
        ("IoU", figures.iou, ""),
        ("accuracy", figures.accuracy, ""),
        ("PxAP of the mask", figures.pxap_mask, "over all pixels together"),
        ("PxAP of the CAM", figures.pxap_cam, "of the predicted class"),
        ("calibration error of the mask", figures.ece_mask, "0 is best"),
        ("calibration error of the scores", figures.ece_scores, "0 is best"),
    ]
    whole = Table("", "value", "", title=title, title_justify="left")
    for name, value, note in rows:
        whole.add_row(name, _number(value), note)
    by_class = Table("class", "images", "masks", "accuracy", "Dice", "IoU")
    for name, one in figures.classes.items():
        numbers = (_number(one.accuracy), _number(one.dice), _number(one.iou))
        by_class.add_row(name, str(one.images), str(one.masks), *numbers)
    console = Console()
    console.print(whole)
    console.print(by_class)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
