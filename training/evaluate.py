"""Measure a model file as it is served: through ONNX Runtime, at the images' own size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from alserve.device import available_cores
from alserve.errors import DataError
from alserve.imageio import write_atomic
from alserve.predictor import Predictor, load
from training.dataset import Sample, load_dataset
from training.metrics import dice, iou


class Figures(BaseModel):
    """Means over a set of images; dice and iou over those that have a mask, None where none has."""

    dice: float | None
    iou: float | None
    accuracy: float
    images: int
    masks: int


def measure(predictor: Predictor, samples: Sequence[Sample]) -> Figures:
    """Compare predictions with masks and classes.

    Args:
        predictor: The loaded model.
        samples: Images with their classes as indices into the model's.

    Returns:
        Dice and IoU of the foreground and accuracy, 0 to 1, each a mean over images.
    """

    def compare(sample: Sample) -> tuple[float | None, float | None, bool]:
        image, truth = sample.read()
        (prediction,) = predictor.predict([image])
        hit = int(prediction.class_scores.argmax()) == sample.label
        if truth is None:
            return None, None, hit
        mask = prediction.mask()
        return dice(mask, truth), iou(mask, truth), hit

    with ThreadPoolExecutor(available_cores()) as pool:
        rows = list(pool.map(compare, samples))
    dices = [row[0] for row in rows if row[0] is not None]
    ious = [row[1] for row in rows if row[1] is not None]
    return Figures(
        dice=sum(dices) / len(dices) if dices else None,
        iou=sum(ious) / len(ious) if ious else None,
        accuracy=sum(row[2] for row in rows) / len(rows),
        images=len(rows),
        masks=len(dices),
    )


def evaluate_file(model: Path, data: Path, *, masks: Path | None, split: str, json_path: Path | None) -> None:
    """Measure a model file on one split of a data set, print the figures, and write them where asked.

    Raises:
        DataError: The split is empty, or the classes are not the model's.
        ModelError: The file is no model.
    """
    predictor = load(model, threads=1)
    dataset = load_dataset(data, masks)
    samples = dataset.split(split)
    if not samples:
        there = ", ".join(sorted({sample.split for sample in dataset.samples}))
        raise DataError(f"{data}: no image in split '{split}'; choose one of: {there}")
    if dataset.classes != predictor.spec.classes:
        raise DataError(
            f"{data}: its classes are {', '.join(dataset.classes)}, the model's are {', '.join(predictor.spec.classes)}"
        )
    figures = measure(predictor, samples)
    table = Table("", "value", title=f"{model.name} on {len(samples)} images of split '{split}'")
    for name, value in figures.model_dump().items():
        table.add_row(name, "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if json_path:
        write_atomic(json_path, figures.model_dump_json(indent=2).encode())
