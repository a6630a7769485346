"""Small drawn examples and settings for training in seconds."""

from typing import Any

import cv2
import numpy as np
import torch

from training.data.examples import Example
from training.settings import Settings

SMALL: dict[str, Any] = {
    "method": "label-propagation",
    "short_side": 64,
    "batch": 4,
    "classifier_steps": 3,
    "classifier_cycles": 1,
    "steps": 2,
    "initial": 1,
    "per_round": 1,
    "passes": 2,
    "rounds": 2,
}
"""The smallest settings that go through everything."""

UNTRAINED: dict[str, Any] = {**SMALL, "encoder": "resnet18", "pretrained": False}
"""As well with the encoder that is quickest to export."""


def settings(base: dict[str, Any] = SMALL, **changes: Any) -> Settings:
    return Settings.model_validate({**base, **changes})


def example(seed: int, *, weight: float = 1.0, shape: tuple[int, int] = (64, 96)) -> Example:
    """White blobs on black, reddish in class 0 and bluish in class 1, and the mask of exactly these blobs."""
    coarse = np.random.default_rng(seed).random((3, 4), np.float32)
    blobs = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC) > 0.5
    image = np.repeat(blobs[..., None] * np.uint8(200), 3, axis=2)
    label = seed % 2
    image[..., 2 * label] += np.uint8(50)
    return Example(image, label, blobs, weight)


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    """A batch of noise as a network takes it: uint8 [batch, 3, height, width]."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
