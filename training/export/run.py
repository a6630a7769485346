"""Write the model file of a run, as it is or quantized."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alserve.errors import DataError, ModelError, RunError
from alserve.files import write_atomic
from alserve.measure.dataset import Dataset, load_dataset
from alserve.modelfile import Cost, ModelSpec, Precision, Reference, write_metadata
from alserve.places.urls import Location
from alserve.runtime.device import advise_against_int8
from alserve.runtime.engine import Engine
from alserve.terminal import print_facts, say
from training.data.local_copy import local_copy
from training.run.records import read_config


class Exported(NamedTuple):
    """A model file that was written."""

    path: Path
    spec: ModelSpec
    """The contract as stored in the file."""
    cost: Cost | None
    """What a quantized copy costs; None for float32."""


def export_run(
    run: Path,
    out: Path,
    precision: Precision = "fp32",
    *,
    data: Location | None = None,
    force: bool = False,
    references: bool = True,
) -> Exported:
    """Write the model file of a run's last finished round, as it is or quantized.

    It was compared with the network when it was written; a quantized copy is compared with it on the images of split
    test (else valid, else train).

    Args:
        run: The run's folder.
        out: The file to write.
        precision: "fp32", "fp16" or "int8".
        data: The data set, where it is not where it was when the run began.
        force: Write a quantized model even if it loses more than `training.export.quantize` allows.
        references: Leave the pieces of training images, by which the model checks itself, in the file.

    Returns:
        The file, with its contract and what a quantized copy costs.

    Raises:
        RunError: There is no run, or none of its rounds is finished.
        DataError: The data set of the run, which a quantized copy is measured on, is not there or has changed.
        ModelError: The run's model file is damaged, or the quantized copy loses too much.
    """
    config = read_config(run)
    model = run / "model.onnx"
    if not model.is_file():
        raise RunError(f"{run}: no round is finished yet; run 'alserve train' with the same --out to continue")
    engine = Engine(model, device="cpu", self_check=False)
    spec, kept = engine.spec, engine.references if references else ()
    if precision != "fp32":
        cost = _export_quantized(model, out, precision, _dataset_of(run, config, data), kept, force=force)
        return Exported(out, spec.model_copy(update={"precision": precision, "cost": cost}), cost)
    write_atomic(out, write_metadata(model.read_bytes(), spec, kept))
    say(describe_references(out, kept))
    from training.export.quantize import blank_speed  # noqa: PLC0415  slow to import

    worst = max(figure.max_difference for figure in spec.parity)
    made = spec.provenance
    figures = {
        "test Dice of images with foreground": made.test_foreground_dice,
        "test Dice": made.test_dice,
        "test IoU": made.test_iou,
        "test accuracy": made.test_accuracy,
    }
    measured = "".join(f"{name} {100 * value:.1f} %; " for name, value in figures.items() if value is not None)
    say(
        f"{out}: {', '.join(spec.classes)}; {made.masks_used} masks; {measured}"
        f"{out.stat().st_size / 1e6:.2f} MB; {blank_speed(out)} images/s on one thread; "
        f"largest difference from the trained network {worst:.1e}"
    )
    return Exported(out, spec, None)


def _dataset_of(run: Path, config: dict[str, Any], data: Location | None) -> Dataset:
    dataset = local_copy(load_dataset(data or config["source"], config["masks"]))
    if dataset.fingerprint() != config["fingerprint"]:
        raise DataError(
            f"{dataset.source}: is not the data that {run} learned from, or has changed; name it with --data"
        )
    return dataset


def describe_references(model: Path, references: Sequence[Reference]) -> str:
    """Say what of the training images a model file carries, for it may be passed on."""
    if not references:
        return f"{model}: carries no reference images, so it cannot check itself where it runs"
    height, width = references[0].image.shape[:2]
    return (
        f"{model}: carries {len(references)} pieces of training images ({height} x {width} pixels) to check itself by "
        "where it runs; if nobody may see them, export with --no-references"
    )


def _export_quantized(
    model: Path, out: Path, precision: Precision, dataset: Dataset, references: Sequence[Reference], *, force: bool
) -> Cost:
    from training.export.quantize import CALIBRATION_IMAGES, quantize_model  # noqa: PLC0415  slow to import

    train = dataset.split("train")
    samples = dataset.split("test") or dataset.split("valid") or train
    scratch = out.with_name(f".{out.name}.part")
    try:
        calibration = train[:: 1 + len(train) // CALIBRATION_IMAGES]
        quantized = quantize_model(model, scratch, precision, calibration, samples, references)
        print_facts(f"{out}: {precision}", quantized.cost.describe())
        if precision == "int8" and (advice := advise_against_int8(quantized.cost)):
            say(advice)
        if quantized.loss and not force:
            raise ModelError(f"{precision} loses {quantized.loss}; nothing is written, --force writes it all the same")
        scratch.replace(out)
        say(describe_references(out, quantized.references))
        return quantized.cost
    finally:
        scratch.unlink(missing_ok=True)
