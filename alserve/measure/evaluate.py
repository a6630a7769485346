"""Measure a model file as it is served: through ONNX Runtime, at the images' own size."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from alserve.drawing import contact_sheet, panels
from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.images.codec import encode_jpeg, encode_png
from alserve.measure.dataset import Dataset, Sample, load_dataset
from alserve.measure.metrics import BinnedScores, area_under_roc, dice, iou, mean_interval, share_interval
from alserve.parallel import ordered_map
from alserve.paths import printable
from alserve.places.store import AT_STORE
from alserve.places.urls import Location, on_disk, path_of
from alserve.predictor import Predictor, load
from alserve.runtime.device import available_cores
from alserve.terminal import progress, say

WORST = 10
"""So many images of the lowest Dice, and so many false alarms, are named, and drawn."""

ENCODERS = {".png": encode_png, ".jpg": encode_jpeg, ".jpeg": encode_jpeg}
"""Kinds of picture that a contact sheet is written as, by suffix."""


class ClassFigures(BaseModel):
    """Measures over the images of one class, 0 to 1; None where there is nothing to take a mean of.

    An image *with foreground* has a true mask with at least one pixel of foreground, an *empty* one a true mask with
    none. Intervals are 95 % intervals: of means the bootstrap's (`mean_interval`), of shares Wilson's
    (`share_interval`).
    """

    images: int
    masks: int
    """Images that have a mask; those without one count for accuracy and `ece_scores` only."""
    with_foreground: int = 0
    """Images with foreground."""
    foreground_dice: float | None = None
    """Mean Dice over the images with foreground; an empty mask has 0 there."""
    foreground_dice_interval: tuple[float, float] | None = None
    """None for fewer than two images."""
    found: float | None = None
    """Share of the images with foreground in which predicted and true mask have at least one pixel in common."""
    found_interval: tuple[float, float] | None = None
    empty: int = 0
    """Empty images."""
    false_alarms: float | None = None
    """Share of the empty images in which at least one pixel is predicted as foreground."""
    false_alarms_interval: tuple[float, float] | None = None
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None = None
    dice: float | None
    """Mean over all images with a mask. Of an empty image an empty prediction counts 1, any other 0: where many images
    are empty, a model that predicts nothing has a high one. Read `foreground_dice` and `false_alarms` instead."""
    dice_interval: tuple[float, float] | None = None
    """None for fewer than two masks."""
    iou: float | None
    """Mean over all images with a mask, as `dice`."""
    iou_interval: tuple[float, float] | None = None


class Case(BaseModel):
    """One image with foreground, and how well it was segmented."""

    name: str
    dice: float
    found: bool = True
    """Whether predicted and true mask have a pixel in common."""


class FalseAlarm(BaseModel):
    """One empty image in which foreground is predicted."""

    name: str
    area: float
    """Share of its pixels that are predicted as foreground, 0 to 1."""


class Figures(ClassFigures):
    """Measures over a set of images, 0 to 1; those of masks over the images that have one, None where none has."""

    accuracy: float
    auroc: float | None = None
    """Area under the ROC curve by image: how often an image with foreground has a higher score than an empty one.

    An image's score is the largest probability of its mask, so that it is above the threshold where a pixel is
    predicted as foreground. None where all images have foreground, or all are empty. See `area_under_roc`.
    """
    foreground_dice_of_everything: float | None = None
    """What a mask of all pixels would have as `foreground_dice`: where much is foreground, that is not little."""
    dice_of_everything: float | None
    """What a mask of all pixels would have as `dice`."""
    dice_of_nothing: float | None = None
    """What an empty mask would have as `dice`: the share of the images that are empty."""
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
    classes: dict[str, ClassFigures]
    """By true class."""
    worst: list[Case]
    """The ten images with foreground of the lowest Dice, the worst first."""
    largest_false_alarms: list[FalseAlarm] = []
    """The ten false alarms of the largest area, the largest first."""


class _Row(NamedTuple):
    """What is kept of one image."""

    sample: Sample
    right: bool
    dice: float | None = None
    iou: float | None = None
    dice_of_everything: float | None = None
    foreground: bool | None = None
    """Whether the true mask has any; None without a mask."""
    found: bool = False
    """Whether predicted and true mask have a pixel in common."""
    area: float = 0.0
    """Share of the pixels that are predicted as foreground."""
    score: float = 0.0
    """The largest probability of the mask."""


def _compare(predictor: Predictor, sample: Sample) -> tuple[_Row, tuple[BinnedScores, BinnedScores, BinnedScores]]:
    """Predict one image; give its row, and the tallies of its best score, its mask's pixels, its CAM's."""
    image, truth = sample.read()
    prediction = predictor.predict(image)
    scores = prediction.class_scores
    right = int(scores.argmax()) == sample.label
    score = BinnedScores.of(scores.max(keepdims=True), np.array([right]))
    if truth is None:
        return _Row(sample, right), (score, BinnedScores(), BinnedScores())
    probability = prediction.probability()
    mask = probability > prediction.spec.threshold
    row = _Row(
        sample,
        right,
        dice=dice(mask, truth),
        iou=iou(mask, truth),
        dice_of_everything=dice(np.ones_like(truth), truth),
        foreground=bool(truth.any()),
        found=bool((mask & truth).any()),
        area=float(mask.mean()),
        score=float(probability.max()),
    )
    return row, (score, BinnedScores.of(probability, truth), BinnedScores.of(prediction.cam(), truth))


def measure(predictor: Predictor, samples: Sequence[Sample]) -> Figures:
    """Compare predictions with masks and classes, on all cores; no pixels are kept, however many images there are.

    Args:
        predictor: The model, best loaded with `threads=1`.
        samples: Images, at least one, with their classes as indices into the model's.

    Raises:
        DataError: A file cannot be used, or an image and its mask differ in size.
    """
    rows: list[_Row] = []
    workers = available_cores() * (1 if all(path_of(sample.image) for sample in samples) else AT_STORE)
    tallies = score, mask, cam = BinnedScores(), BinnedScores(), BinnedScores()
    with progress(len(samples), "measuring") as show:
        for row, counted in ordered_map(lambda sample: _compare(predictor, sample), samples, workers):
            rows.append(row)
            for tally, one in zip(tallies, counted, strict=True):
                tally.add(one)
            show(len(rows))
    whole, full = _class_figures(rows), [row for row in rows if row.foreground]
    cases = [Case(name=printable(row.sample.name), dice=row.dice or 0.0, found=row.found) for row in full]
    alarms = [FalseAlarm(name=printable(row.sample.name), area=row.area) for row in rows if _is_false_alarm(row)]
    truths = [row for row in rows if row.foreground is not None]
    return Figures(
        **whole.model_dump(),
        auroc=area_under_roc([row.score for row in truths], [bool(row.foreground) for row in truths]),
        foreground_dice_of_everything=_mean(row.dice_of_everything for row in full),
        dice_of_everything=_mean(row.dice_of_everything for row in rows),
        dice_of_nothing=whole.empty / whole.masks if whole.masks else None,
        pxap_mask=mask.average_precision(),
        pxap_cam=cam.average_precision(),
        ece_mask=mask.calibration_error(),
        ece_scores=score.calibration_error(),
        classes={
            name: _class_figures([row for row in rows if row.sample.label == label])
            for label, name in enumerate(predictor.spec.classes)
        },
        worst=sorted(cases, key=lambda case: case.dice)[:WORST],
        largest_false_alarms=sorted(alarms, key=lambda alarm: -alarm.area)[:WORST],
    )


def _is_false_alarm(row: _Row) -> bool:
    return row.foreground is False and row.area > 0


def _class_figures(rows: Sequence[_Row]) -> ClassFigures:
    full, empty = ([row for row in rows if row.foreground is wanted] for wanted in (True, False))
    dices = [row.dice for row in rows if row.dice is not None]
    ious = [row.iou for row in rows if row.iou is not None]
    foreground_dices = [row.dice for row in full if row.dice is not None]
    right, found = sum(row.right for row in rows), sum(row.found for row in full)
    alarms = sum(_is_false_alarm(row) for row in empty)
    return ClassFigures(
        images=len(rows),
        masks=len(dices),
        with_foreground=len(full),
        foreground_dice=_mean(foreground_dices),
        foreground_dice_interval=mean_interval(foreground_dices),
        found=_share(found, len(full)),
        found_interval=share_interval(found, len(full)),
        empty=len(empty),
        false_alarms=_share(alarms, len(empty)),
        false_alarms_interval=share_interval(alarms, len(empty)),
        accuracy=_share(right, len(rows)),
        accuracy_interval=share_interval(right, len(rows)),
        dice=_mean(dices),
        dice_interval=mean_interval(dices),
        iou=_mean(ious),
        iou_interval=mean_interval(ious),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _share(count: int, total: int) -> float | None:
    return count / total if total else None


def draw_worst(predictor: Predictor, samples: Sequence[Sample], figures: Figures, path: Path) -> None:
    """Draw the images of the lowest Dice, then the largest false alarms: image, CAM, mask and truth in a row.

    Args:
        predictor: The model.
        samples: What was measured.
        figures: What `measure` gave for them, with at least one image in `worst` or `largest_false_alarms`.
        path: The picture to write; its suffix is one of `ENCODERS`.
    """
    captions = [(case.name, f"Dice {case.dice:.3f}{'' if case.found else ', not found'}") for case in figures.worst]
    captions += [
        (alarm.name, f"false alarm on {100 * alarm.area:.2g} % of the pixels") for alarm in figures.largest_false_alarms
    ]
    by_name = {printable(sample.name): sample for sample in samples}
    rows = []
    for name, caption in captions:
        image, truth = by_name[name].read()
        prediction = predictor.predict(image)
        rows.append((f"{name}  {caption}", panels(image, prediction.cam(), prediction.mask(), truth)))
    write_atomic(path, ENCODERS[path.suffix.lower()](contact_sheet(rows)))


def evaluate(
    model: Location,
    data: Location,
    *,
    masks: Location | None = None,
    split: str = "test",
    worst: str | Path | None = None,
    self_check: bool = True,
) -> Figures:
    """Measure a model file on one split of a data set.

    Args:
        model: The model file, or its URL in an object store.
        data: See `load_dataset`; classes are found by name, and may be some of the model's only. What is in an object
            store is read as it is measured, and not kept.
        masks: See `alserve.measure.dataset.load_dataset`.
        split: "train", "valid" or "test".
        worst: Where the contact sheet of the worst images is to be.
        self_check: Refuse a model that gives something else here than the trained network gave.

    Raises:
        DataError: The split is empty, a class is none of the model's, or there is nothing to draw for `worst`.
        ModelError: The file is no model.

    Example:
        >>> alserve.evaluate("tissue.onnx", "tissue.csv").foreground_dice
    """
    predictor = load(model, threads=1, self_check=self_check)
    dataset = load_dataset(data, masks)
    samples = _samples(dataset, split, predictor.spec.classes)
    picture = None if worst is None else on_disk(worst)
    if picture is not None:
        if picture.suffix.lower() not in ENCODERS:
            raise DataError(f"{picture}: the picture of the worst images ends in one of {', '.join(ENCODERS)}")
        if all(sample.mask is None for sample in samples):
            raise DataError(f"{data}: no image of split '{split}' has a mask, so none is the worst; give --masks")
    figures = measure(predictor, samples)
    if picture is not None:
        _draw_worst_if_any(predictor, samples, figures, picture)
    return figures


def _draw_worst_if_any(predictor: Predictor, samples: Sequence[Sample], figures: Figures, picture: Path) -> None:
    shown = [f"the {len(figures.worst)} images of the lowest Dice"] if figures.worst else []
    if alarms := len(figures.largest_false_alarms):
        shown.append("a false alarm" if alarms == 1 else f"the {alarms} largest false alarms")
    if shown:
        draw_worst(predictor, samples, figures, picture)
        say(f"{picture} shows {' and '.join(shown)}")
    else:
        say(f"{picture} is not written: no image has foreground, and there is no false alarm")


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
