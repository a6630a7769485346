"""The result of a round: its network as a model file, measured as it is served, and a record of both."""

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version

import numpy as np

from alserve.arrays import Image
from alserve.errors import ModelError
from alserve.images.codec import peek_shape
from alserve.measure.evaluate import ClassFigures, measure
from alserve.modelfile import ModelSpec, Provenance
from alserve.predictor import load
from alserve.terminal import progress, say
from training.export.to_onnx import choose_references, export_model, stamp
from training.learning.data import TrainingData
from training.learning.pool import evenly
from training.learning.pseudo import pseudo_mask
from training.learning.pseudo_dice import pseudo_dice
from training.learning.state import LearningState
from training.model.network import JointNet
from training.model.trainer import Trainer
from training.run.folder import Run

CAM_PERCENTILES = (2, 98)
"""Activations of the predicted class that are drawn as 0 and as 1."""

CAM_IMAGES = 200
"""Most training images that decide the scale of the CAMs."""

MOST_COMPARED = 200
"""Most images whose masks by consistency are compared with the true ones."""

PARITY_IMAGES = 3
"""Training images on which the file is compared with the network."""

PACKAGES = ("alserve", "torch", "timm", "segmentation-models-pytorch", "onnx")
"""Packages whose versions are stored in the file."""

BY_CLASS = {name for name in ClassFigures.model_fields if not name.endswith("_interval")}
"""What a round's record has of each class."""


def publish(net: JointNet, state: LearningState, data: TrainingData, trainer: Trainer, run: Run) -> dict[str, object]:
    """Export the round's network, measure the file on the test images as it is served, and return the round's record.

    Raises:
        ModelError: The network returns NaN or infinity, or the file differs from it.
    """
    record: dict[str, object] = {
        "round": state.round,
        "masks_used": masks_used(state, data),
        **_pseudo_figures(net, state, data, trainer),
        "threshold": state.threshold,
        "threshold_reason": state.threshold_reason,
        "asked": [data.samples[index].name for index in state.asked[-1]],
    }
    say(f"round {state.round}, export: writing {run.model} and comparing it with the network")
    spec = _spec(net, state, data, trainer, run.fingerprint)
    spec = export_model(
        net,
        spec,
        run.model,
        data.images[:PARITY_IMAGES],
        mask_from_cams=data.settings.mask_from_cams,
        references=partial(choose_references, data.images, data.labels) if data.settings.references else None,
    )
    say(f"round {state.round}, export: {run.note_time(state.round, 'export'):.0f} s")
    if tests := data.dataset.split("test"):
        figures = measure(load(run.model, device="cpu", threads=1, self_check=False), tests)
        known = {"test_dice": figures.dice, "test_iou": figures.iou, "test_accuracy": figures.accuracy}
        more = {
            "test_foreground_dice": figures.foreground_dice,
            "test_found": figures.found,
            "test_false_alarms": figures.false_alarms,
        }
        stored = known | more if figures.empty else known
        stamp(run.model, spec.model_copy(update={"provenance": spec.provenance.model_copy(update=stored)}))
        record |= (
            known
            | more
            | {
                "test_auroc": figures.auroc,
                "test_foreground_dice_interval": figures.foreground_dice_interval
                and [*figures.foreground_dice_interval],
                "test_classes": {name: one.model_dump(include=BY_CLASS) for name, one in figures.classes.items()},
            }
        )
        say(f"round {state.round}, {len(tests)} test images: {run.note_time(state.round, 'test'):.0f} s")
    return record


def _pseudo_figures(net: JointNet, state: LearningState, data: TrainingData, trainer: Trainer) -> dict[str, object]:
    """Return the number of images that teach by a mask of the model's own, and the Dice of such masks.

    By consistency these are all of U, with the masks of the teacher, whose weights the network has now; they are not
    kept, so a part of them is made again here.
    """
    taught, pseudo = state.pool.pseudo, state.pseudo
    if data.settings.uses_consistency:
        taught = state.pool.unlabelled
        known = [index for index in sorted(taught) if data.samples[index].mask is not None]
        members = evenly(known, MOST_COMPARED)
        found = trainer.predict(net, (data.images[index] for index in members))
        pseudo = {
            index: pseudo_mask(probability, state.threshold)
            for index, (probability, _) in zip(members, found, strict=True)
        }
    return {"pseudo_labels": len(taught), "pseudo_dice": pseudo_dice(pseudo, data.samples)}


def masks_used(state: LearningState, data: TrainingData) -> int:
    """Return the number of masks that were used so far, those for choosing the threshold included.

    Masks that are known to be empty by their class cost nothing and do not count.
    """
    return len(state.pool.labelled) + sum(sample.label in data.foreground_classes for sample in data.valid)


def _spec(net: JointNet, state: LearningState, data: TrainingData, trainer: Trainer, fingerprint: str) -> ModelSpec:
    shapes = [peek_shape(sample.image) for sample in data.samples]
    return ModelSpec(
        classes=data.dataset.classes,
        empty_classes=data.settings.empty_classes,
        threshold=state.threshold,
        cam_stride=data.settings.cam_stride,
        short_side=data.settings.short_side,
        training_short_side=int(np.median([min(shape) for shape in shapes if shape])),
        cam_range=_cam_range(net, trainer, data.images[:: 1 + len(data) // CAM_IMAGES]),
        provenance=Provenance(
            encoder=data.settings.encoder,
            decoder=data.settings.decoder,
            method=data.settings.method,
            seed=data.settings.seed,
            rounds=state.round,
            masks_used=masks_used(state, data),
            train_images=len(data),
            data_fingerprint=fingerprint,
            versions={name: version(name) for name in PACKAGES},
        ),
    )


def _cam_range(net: JointNet, trainer: Trainer, images: Sequence[Image]) -> tuple[float, float]:
    """Return the activations that are drawn as 0 and as 1."""
    highest = []
    with progress(len(images), "scale of the CAMs") as show:
        for _, cams in trainer.predict(net, images):
            highest.append(cams.max(axis=0).ravel())
            show(len(highest))
    low, high = np.percentile(np.concatenate(highest), CAM_PERCENTILES)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ModelError("the trained network returns NaN or infinity; train with a lower --set lr=... or encoder_lr")
    return float(low), float(high)
