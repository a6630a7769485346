"""Smaller, faster copies of a model file: half precision for GPUs, 8 bits for CPUs, and what each of them costs."""

import logging
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
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
from alserve.modelfile import INPUT, OUTPUTS, Cost, ModelSpec, Precision, Reference, write_metadata
from alserve.predictor import Predictor, load
from alserve.runtime.selfcheck import LIMITS, exceeded

UPSAMPLING = frozenset({"Resize", "ConvTranspose"})
"""Operators that begin a stage of a decoder."""

FIRST_CONVOLUTIONS = 2
"""Convolutions from the image on that may stay in float."""

MAX_DICE_LOSS = 0.005
MIN_AGREEMENT = 0.99
"""Limits of what a quantized model may lose, as shares; what loses more is not exported unless it is forced."""

CALIBRATION_IMAGES = 48
"""Largest number of training images that the range of the activations is measured on."""

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


def float_candidates(model: onnx.ModelProto) -> list[frozenset[str]]:
    """Return what may stay in float beside 8 bits, in the order to try it.

    Nothing; the two ends: the first convolutions, whose channels differ in range more than those of any later layer,
    and both heads, that of the CAMs being what only these and the scores depend on; the decoder's last stage as well,
    from where it scales up; the whole decoder, which is what only the mask depends on.

    Returns:
        The names of the nodes of each, every set part of the next.
    """
    makers = {name: node for node in model.graph.node for name in node.output}

    def behind(tensors: Iterable[str], until: Collection[str] = ()) -> dict[str, onnx.NodeProto]:
        """Return the nodes that tensors are computed by, as far as those of some operators, which are included."""
        found: dict[str, onnx.NodeProto] = {}
        waiting = list(tensors)
        while waiting:
            node = makers.get(waiting.pop())
            if node is not None and node.name not in found:
                found[node.name] = node
                if node.op_type not in until:
                    waiting += node.input
        return found

    *others, mask = OUTPUTS
    head = behind([mask], {"Conv"})
    below_head = [name for node in head.values() if node.op_type == "Conv" for name in node.input]
    decoder = behind([mask]).keys() - behind(others).keys()
    cam_head = behind(others).keys() - behind([mask]).keys()
    first = [node.name for node in model.graph.node if node.op_type == "Conv"][:FIRST_CONVOLUTIONS]
    ends = frozenset({*head, *cam_head, *first, *(makers[name].name for name in OUTPUTS)})
    stage = ends | (behind(below_head, UPSAMPLING).keys() & decoder)
    return list(dict.fromkeys((frozenset(), ends, stage, stage | decoder)))


def eight_bits(source: Path, images: Sequence[Image], keep_float: Collection[str] = ()) -> onnx.ModelProto:
    """Return a copy that computes in 8 bits: QDQ format, uint8 activations, int8 weights with a scale per channel.

    The weights use 7 of the 8 bits: CPUs without VNNI add up two products in 16 bits, which 8-bit weights overflow.

    Args:
        source: The model file in float32.
        images: Calibration images at the working size: they show the range of every activation.
        keep_float: Names of the nodes that stay in float.
    """
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
            nodes_to_exclude=sorted(keep_float),
        )
        return onnx.load(path)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # comes without types
    """Passes images to the calibration, one by one."""

    def __init__(self, images: Sequence[Image]) -> None:
        self._images: Iterator[Image] = iter(images)

    def get_next(self) -> dict[str, Image] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizer's hints, which are not for our users."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def compare(full: Predictor, quantized: Predictor, samples: Sequence[Sample]) -> Cost:
    """Measure what a quantized model costs, on images that have a class and perhaps a mask.

    Args:
        full: The model in float32, loaded with one thread.
        quantized: The other one, likewise.
        samples: The images, of one split.
    """
    rows = []
    for sample in samples:
        image, truth = sample.read()
        pair = [predictor.predict(image) for predictor in (full, quantized)]
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

    before, after = speeds((full, quantized), [sample.read()[0] for sample in samples[:SPEED_IMAGES]])
    return Cost(
        split=samples[0].split,
        images=len(rows),
        dice=mean("dice"),
        iou=mean("iou"),
        accuracy=mean("accuracy"),
        label_agreement=float(np.mean([row["agreement"] for row in rows])),
        mask_iou=float(np.mean([row["mask_iou"] for row in rows])),
        max_score_difference=float(np.max([row["difference"] for row in rows])),
        megabytes=(_megabytes(full), _megabytes(quantized)),
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
    """Return a model's images a second on one thread, for blank images of its working size."""
    predictor = load(model, device="cpu", threads=1, self_check=False)
    side = predictor.spec.short_side
    return speeds([predictor], [np.zeros((side, side * 3 // 2, 3), np.uint8)])[0]


def loses_too_much(cost: Cost) -> str | None:
    """Say what a quantized model loses beyond the limits; None if it does not."""
    reasons = []
    before, after = cost.dice
    if before is not None and after is not None and before - after > MAX_DICE_LOSS:
        reasons.append(f"{100 * (before - after):.2f} Dice points (at most {100 * MAX_DICE_LOSS})")
    if cost.label_agreement < MIN_AGREEMENT:
        reasons.append(
            f"{100 * (1 - cost.label_agreement):.1f} % of the labels (at most {100 - 100 * MIN_AGREEMENT:g} %)"
        )
    return " and ".join(reasons) or None


class Quantized(NamedTuple):
    """What came of a quantized copy."""

    cost: Cost
    loss: str | None
    """What it loses beyond the limits; None if it does not."""
    references: tuple[Reference, ...]
    """What it carries; none where it is too far from their answers, as every self-check would refuse it."""


def quantize_model(
    source: Path,
    target: Path,
    precision: Precision,
    calibration: Sequence[Sample],
    samples: Sequence[Sample],
    references: Sequence[Reference] = (),
) -> Quantized:
    """Write a quantized copy of a model file, whatever it loses, with its cost in the contract.

    Args:
        source: A model file in float32.
        target: The file to write.
        precision: "fp16" or "int8". With int8 the sets of `float_candidates` are kept in float in turn, until the copy
            is within the limits.
        calibration: Training images, for int8.
        samples: Images to measure the cost on.
        references: Images with the answers of the trained network in float32, for the copy to carry.
    """
    full = load(source, device="cpu", threads=1, self_check=False)
    spec = full.spec.model_copy(update={"precision": precision})
    images = [_working(sample, spec.short_side) for sample in calibration] if precision == "int8" else []
    original = onnx.load(source)
    for keep_float in float_candidates(original) if precision == "int8" else (frozenset(),):
        copy = eight_bits(source, images, keep_float) if precision == "int8" else half_precision(original)
        _store(copy, spec, target, references)
        quantized = load(target, device="cpu", threads=1, self_check=False)
        cost = compare(full, quantized, samples)
        missed = exceeded(quantized.engine.deviation(), LIMITS[precision]) if references else None
        carried = () if missed else tuple(references)
        _store(copy, spec.model_copy(update={"cost": cost}), target, carried)
        loss = " and ".join(filter(None, (loses_too_much(cost), missed))) or None
        if loss is None:
            break
    return Quantized(cost, loss, carried)


def _working(sample: Sample, short_side: int) -> Image:
    image, _mask = sample.read()
    return resize(image, working_shape(image.shape[0], image.shape[1], short_side))


def _store(model: onnx.ModelProto, spec: ModelSpec, path: Path, references: Sequence[Reference]) -> None:
    write_atomic(path, write_metadata(model.SerializeToString(deterministic=True), spec, references))
