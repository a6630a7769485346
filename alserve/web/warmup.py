"""The first prediction of a service: it makes the next one quick, and shows that the model works where it runs."""

import numpy as np

from alserve.engine import Engine
from alserve.errors import ModelError
from alserve.geometry import STRIDE, working_shape

_SHAPE = (96, 128)


def warm_up(engine: Engine) -> None:
    """Predict a drawn image and check what comes out.

    Args:
        engine: The loaded model.

    Raises:
        ModelError: The outputs have other shapes than they should, or are not finite, or no probabilities.
        DeviceError: The device gave up.
    """
    height, width = working_shape(*_SHAPE, engine.spec.short_side)
    rows, columns = np.indices((height, width))
    image = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)
    outputs = engine.run(image[None])
    classes = len(engine.spec.classes)
    expected = ((1, classes), (1, classes, height // STRIDE, width // STRIDE), (1, height, width))
    shapes = tuple(output.shape for output in outputs)
    if shapes != expected:
        raise ModelError(f"{engine.path}: gives outputs of shapes {shapes}, not {expected}; export the model again")
    if not all(np.isfinite(output).all() for output in outputs):
        raise ModelError(f"{engine.path}: gives numbers that are not finite on {engine.device}; export the model again")
    if abs(outputs.scores.sum() - 1) > 1e-3 or outputs.mask.min() < 0 or outputs.mask.max() > 1:  # noqa: PLR2004
        raise ModelError(f"{engine.path}: gives no probabilities on {engine.device}; export the model again")
