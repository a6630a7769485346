"""Smaller, faster copies of a model file: half precision for GPUs, 8 bits for CPUs, and what each of them costs."""

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from alserve.arrays import Image
from alserve.files import write_atomic
from alserve.geometry import resize, working_shape
from alserve.measure.dataset import Sample
from alserve.measure.metrics import dice, iou
from alserve.modelfile import INPUT, Cost, ModelSpec, Precision, Reference, write_metadata
from alserve.predictor import Predictor, load
from alserve.runtime.selfcheck import LIMITS, exceeded

KEEP_FLOAT = (0, 1, 3, 9)
"""So many of the last convolutions stay in float, tried in this order: none, mask head, last stage, whole decoder."""

MAX_DICE_LOSS = 0.005
MIN_AGREEMENT = 0.99
"""Limits of what a reduced model may lose, as shares; what loses more is not handed out unasked."""

CALIBRATION_IMAGES = 48
"""So many training images, at most, show the range of the activations."""

SPEED_IMAGES = 8
SPEED_ROUNDS = 5


def half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn a model to float16, for GPUs; inputs and outputs keep their types."""
    half: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    once = {node.output[0]: node for node in reversed(half.graph.node)}  # the converter makes some casts twice
    kept = [node for node in half.graph.node if once[node.output[0]] is node]
    del half.graph.node[:]
    half.graph.node.extend(kept)
    return half


def eight_bits(source: Path, images: Sequence[Image], keep_float: int) -> onnx.ModelProto:
    """Return a copy that computes in 8 bits: QDQ format, uint8 activations, int8 weights with a scale per channel.

    The weights use 7 of the 8 bits: CPUs without VNNI add up two products in 16 bits, which 8-bit weights overflow.

    Args:
        source: The model file in float32.
        images: Calibration images at the working size: they show the range of every activation.
        keep_float: So many of the last convolutions, and all that follows the first of them, stay in float.
    """
    model = onnx.load(source)
    nodes = list(model.graph.node)
    first = [*(index for index, node in enumerate(nodes) if node.op_type == "Conv"), len(nodes)][-keep_float - 1]
    while nodes[first - 1].op_type in {"Resize", "Concat"}:  # what feeds a float layer is better float too
        first -= 1
    kept = [node.name for node in nodes[first:]]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            source,
            path,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=kept,
        )
        return onnx.load(path)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # comes without types
    """Hands images to the calibration, one by one."""

    def __init__(self, images: Sequence[Image]) -> None:
        self._images: Iterator[Image] = iter(images)

    def get_next(self) -> dict[str, Image] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's hints, which are not for our users, off their screen."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def compare(full: Predictor, reduced: Predictor, samples: Sequence[Sample]) -> Cost:
    """Measure what a reduced model costs, on images that have a class and perhaps a mask.

    Args:
        full: The model in float32, loaded with one thread.
        reduced: The other one, likewise.
        samples: The images, of one split.
    """
    rows = []
    for sample in samples:
        image, truth = sample.read()
        pair = [predictor.predict(image) for predictor in (full, reduced)]
        masks = [prediction.mask() for prediction in pair]
        hits = [int(prediction.class_scores.argmax()) == sample.label for prediction in pair]
        rows.append(
            {
                "dice": [dice(mask, truth) if truth is not None else np.nan for mask in masks],
                "iou": [iou(mask, truth) if truth is not None else np.nan for mask in masks],
                "accuracy": hits,
                "agreement": pair[0].label == pair[1].label,
                "mask_iou": iou(*masks),
                "difference": float(np.abs(pair[0].class_scores - pair[1].class_scores).max()),
            }
        )

    def mean(name: str) -> tuple[float | None, float | None]:
        values = np.array([row[name] for row in rows], np.float64)
        known = values[~np.isnan(values[:, 0])]
        return (None, None) if not len(known) else (float(known[:, 0].mean()), float(known[:, 1].mean()))

    before, after = speeds((full, reduced), [sample.read()[0] for sample in samples[:SPEED_IMAGES]])
    return Cost(
        split=samples[0].split,
        images=len(rows),
        dice=mean("dice"),
        iou=mean("iou"),
        accuracy=mean("accuracy"),
        label_agreement=float(np.mean([row["agreement"] for row in rows])),
        mask_iou=float(np.mean([row["mask_iou"] for row in rows])),
        max_score_difference=float(np.max([row["difference"] for row in rows])),
        megabytes=(_megabytes(full), _megabytes(reduced)),
        images_per_second=(before, after),
    )


def _megabytes(predictor: Predictor) -> float:
    return round(predictor.engine.path.stat().st_size / 1e6, 2)


def speeds(predictors: Sequence[Predictor], images: Sequence[Image]) -> list[float]:
    """Return each model's images a second: medians of rounds in turn, for machines are unsteady."""
    seconds: list[list[float]] = [[] for _ in predictors]
    for _ in range(SPEED_ROUNDS):
        for predictor, taken in zip(predictors, seconds, strict=True):
            start = time.perf_counter()
            for image in images:
                predictor.predict(image)
            taken.append(time.perf_counter() - start)
    return [round(len(images) / float(np.median(taken)), 2) for taken in seconds]


def blank_speed(model: Path) -> float:
    """Return a model's images a second on one thread, for images of its working size that take as long as any other."""
    predictor = load(model, device="cpu", threads=1, self_check=False)
    side = predictor.spec.short_side
    return speeds([predictor], [np.zeros((side, side * 3 // 2, 3), np.uint8)])[0]


def loses_too_much(cost: Cost) -> str | None:
    """Say what a reduced model loses beyond the limits; None if it does not."""
    reasons = []
    before, after = cost.dice
    if before is not None and after is not None and before - after > MAX_DICE_LOSS:
        reasons.append(f"{100 * (before - after):.2f} Dice points (at most {100 * MAX_DICE_LOSS})")
    if cost.label_agreement < MIN_AGREEMENT:
        reasons.append(
            f"{100 * (1 - cost.label_agreement):.1f} % of the labels (at most {100 - 100 * MIN_AGREEMENT:g} %)"
        )
    return " and ".join(reasons) or None


class Reduced(NamedTuple):
    """A reduced copy, and whether it may be handed out."""

    cost: Cost
    loss: str | None
    """What it loses beyond the limits; None if it does not."""
    references: tuple[Reference, ...]
    """What it carries; nothing where it is too far from their answers, for then it would be served nowhere."""


def reduce_model(
    source: Path,
    target: Path,
    precision: Precision,
    calibration: Sequence[Sample],
    samples: Sequence[Sample],
    references: Sequence[Reference] = (),
) -> Reduced:
    """Write a reduced copy of a model file, whatever it loses, with its cost in the contract.

    Args:
        source: A model file in float32.
        target: The file to write.
        precision: "fp16" or "int8". With int8 more and more of the last layers are kept in float, until the copy is
            within the limits, or none is left to keep.
        calibration: Training images, for int8.
        samples: Images to measure the cost on.
        references: Images with the answers of the trained network in float32, for the copy to carry.
    """
    full = load(source, device="cpu", threads=1, self_check=False)
    spec = full.spec.model_copy(update={"precision": precision})
    images = [_working(sample, spec.short_side) for sample in calibration] if precision == "int8" else []
    for keep_float in KEEP_FLOAT if precision == "int8" else (0,):
        copy = eight_bits(source, images, keep_float) if precision == "int8" else half_precision(onnx.load(source))
        _store(copy, spec, target, references)
        reduced = load(target, device="cpu", threads=1, self_check=False)
        cost = compare(full, reduced, samples)
        missed = exceeded(reduced.engine.deviation(), LIMITS[precision]) if references else None
        carried = () if missed else tuple(references)
        _store(copy, spec.model_copy(update={"cost": cost}), target, carried)
        loss = " and ".join(filter(None, (loses_too_much(cost), missed))) or None
        if loss is None:
            break
    return Reduced(cost, loss, carried)


def _working(sample: Sample, short_side: int) -> Image:
    image, _mask = sample.read()
    return resize(image, working_shape(image.shape[0], image.shape[1], short_side))


def _store(model: onnx.ModelProto, spec: ModelSpec, path: Path, references: Sequence[Reference]) -> None:
    write_atomic(path, write_metadata(model.SerializeToString(deterministic=True), spec, references))
