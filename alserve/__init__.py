"""Learn from image labels and a few pixel masks; classify, explain and segment images with one model file.

`import alserve` loads nothing heavy: what is behind a name is imported at its first use. Only `train` and `export` need
torch, with the extra of `pip install 'alserve[train]'`.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from alserve import errors

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # this software does not phone home, nor do its libraries
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

if TYPE_CHECKING:
    from alserve.api import export, train
    from alserve.folder.segment import segment
    from alserve.measure.evaluate import evaluate
    from alserve.postprocessing import PostProcessing
    from alserve.prediction import Failure, Prediction
    from alserve.predictor import Predictor, load
    from alserve.tiling import Tiling

__version__ = "0.2.0"
__all__ = [
    "Failure",
    "PostProcessing",
    "Prediction",
    "Predictor",
    "Tiling",
    "__version__",
    "errors",
    "evaluate",
    "export",
    "load",
    "segment",
    "train",
]

_MODULES = {
    "Failure": "prediction",
    "PostProcessing": "postprocessing",
    "Prediction": "prediction",
    "Predictor": "predictor",
    "Tiling": "tiling",
    "evaluate": "measure.evaluate",
    "export": "api",
    "load": "predictor",
    "segment": "folder.segment",
    "train": "api",
}
"""Where the names are that are imported at their first use."""


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _MODULES:
        raise AttributeError(f"module 'alserve' has no attribute '{name}'")
    return getattr(import_module(f"alserve.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
