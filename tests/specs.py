"""Metadata of model files for the tests."""

from typing import Any

from alserve.modelfile import ModelSpec, Provenance

PROVENANCE: dict[str, Any] = {
    "encoder": "some_encoder",
    "method": "label-propagation",
    "seed": 7,
    "rounds": 3,
    "masks_used": 12,
    "train_images": 48,
    "data_fingerprint": "5eed5eed",
    "versions": {"torch": "2.99.1"},
}


def spec_of(classes: tuple[str, ...], *, method: str = "label-propagation", train_images: int = 48) -> ModelSpec:
    """Metadata of a model of these classes, learned with this method from this number of images."""
    provenance = Provenance(**{**PROVENANCE, "method": method, "train_images": train_images})
    return ModelSpec(classes=classes, threshold=0.5, short_side=64, cam_range=(0, 1), provenance=provenance)
