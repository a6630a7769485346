"""Run a model that classifies an image, shows where it looked, and segments it. Never imports torch."""

import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # this software does not phone home, nor do its libraries
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

if TYPE_CHECKING:
    from alserve.predictor import Prediction, Predictor, load

__version__ = "0.2.0"
__all__ = ["Prediction", "Predictor", "__version__", "load"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import the heavy half on first use, so that `alserve --help` is quick."""
    if name in {"Prediction", "Predictor", "load"}:
        from alserve import predictor  # noqa: PLC0415

        return getattr(predictor, name)
    raise AttributeError(f"module 'alserve' has no attribute '{name}'")
