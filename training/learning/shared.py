"""Weights that several runs of an experiment have in common: the first run trains them, the others read them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save

from alserve.files import write_atomic
from training.model.trainer import Trainer
from training.model.weights import fingerprint
from training.run.state import Weights

NOT_IN_FIRST_PASS = frozenset(
    {
        "method",  # but for consistency
        "query",  # but for its dropout
        "initial",
        "per_round",
        "rounds",
        "passes",
        "k",
        "pseudo_weight",
        "pseudo_share",
        "pseudo_targets",
        "pseudo_pixels",
        "pseudo_flips",
        "folds",
        "validation_masks",
        "references",
    }
)
"""Settings that a training without pseudo-masks does not read. A new setting counts until it is named here."""

NOT_IN_THETA0 = NOT_IN_FIRST_PASS | {
    "steps",
    "lr",
    "encoder_lr",
    "encoder_after",
    "empty_classes",
    "class_batch",
    "dice_weight",
    "object_crops",
    "consistency_weight",
    "certainty",
    "cam_gate",
    "teacher_momentum",
    "cut_mix",
}
"""Settings that the classifier's training does not read."""


@dataclass(frozen=True)
class Shared:
    """Weights that runs of an experiment have in common, in files named by all that decides their content.

    Args:
        folder: Where they are, on one machine; None where a run shares nothing.
        trainer: The settings and the device.
        fingerprint: Of the data set.
    """

    folder: Path | None
    trainer: Trainer
    fingerprint: str

    def theta0(self, train: Callable[[], Weights]) -> Weights:
        """Return theta0, trained by this run or another."""
        return self._once("theta0", NOT_IN_THETA0, [], train)

    def first_pass(self, labelled: Sequence[int], train: Callable[[], Weights]) -> Weights:
        """Return the weights after the first pass of the first round, without pseudo-masks."""
        settings = self.trainer.settings
        more = [list(labelled), settings.mask_dropout, settings.uses_consistency]
        return self._once("first-pass", NOT_IN_FIRST_PASS, more, train)

    def _once(self, what: str, unread: frozenset[str], more: list[object], train: Callable[[], Weights]) -> Weights:
        if self.folder is None:
            return train()
        settings = self.trainer.settings.model_dump(mode="json", exclude={*unread, "encoder_weights"})
        if (weights := fingerprint(self.trainer.settings.encoder_weights)) is not None:
            settings["encoder_weights"] = weights  # what the file holds, not where it is
        decides = [self.fingerprint, settings, *more, self.trainer.accelerator, torch.__version__]
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        path = self.folder / f"{what}-{key[:16]}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            with suppress(FileNotFoundError, SafetensorError):  # a damaged file is written again
                return load(path.read_bytes())
            write_atomic(path, save(dict(train())))
        return load(path.read_bytes())
