"""What runs of an experiment compute once for all, and by what it is found again."""

import hashlib
import json
from pathlib import Path

import torch

from training.fit import Trainer

NOT_IN_THETA0 = frozenset(
    {
        "method",
        "query",
        "initial",
        "per_round",
        "rounds",
        "passes",
        "steps",
        "lr",
        "encoder_lr",
        "k",
        "pseudo_weight",
        "pseudo_share",
        "pseudo_targets",
        "pseudo_pixels",
        "pseudo_flips",
        "folds",
        "validation_masks",
    }
)
"""Settings that the classifier's training does not read. A new setting counts until it is named here."""


def theta0_file(cache: Path, trainer: Trainer, fingerprint: str) -> Path:
    """Name the file of theta0 by all that decides its content.

    Args:
        cache: Folder of an experiment, on one machine.
        trainer: Has settings and device.
        fingerprint: The data set's.
    """
    settings = trainer.settings.model_dump(mode="json", exclude=set(NOT_IN_THETA0))
    decides = [fingerprint, settings, trainer.accelerator, torch.__version__]
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return cache / f"theta0-{key[:16]}.safetensors"
