"""The contract between training and serving: what the metadata of a model file says.

A model file is one self-contained ONNX file. Input `images`: uint8 [batch, height, width, 3], RGB, height and
width multiples of 32, all dynamic. Outputs: `scores` float32 [batch, classes], softmax; `cams` float32 [batch,
classes, h, w], one class activation map a class; `mask` float32 [batch, height, width], foreground probability.
The metadata holds one JSON object, a `ModelSpec`, under the key `alserve`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from alserve.errors import ModelError
from alserve.geometry import STRIDE

FORMAT_VERSION = 1
METADATA_KEY = "alserve"

INPUT = "images"
OUTPUTS = ("scores", "cams", "mask")

Probability = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parity(_Frozen):
    """Largest absolute difference between the exported and the trained network on real images."""

    batch: int
    height: int
    width: int
    max_difference: float


class Provenance(_Frozen):
    """How the model came to be; all that is needed to judge it, and to train it again."""

    encoder: str
    method: str
    seed: int
    rounds: int
    masks_used: int
    """Every mask an expert gave, those of validation images included."""
    train_images: int
    test_dice: float | None = None
    test_accuracy: float | None = None
    data_fingerprint: str
    versions: dict[str, str]


class ModelSpec(_Frozen):
    """What serving needs to know of a model, and where the model comes from."""

    format_version: int = FORMAT_VERSION
    classes: tuple[str, ...] = Field(min_length=2)
    threshold: Probability
    """A pixel is foreground where the mask probability is above this."""
    short_side: int = Field(gt=0)
    """Working size in pixels, see `alserve.geometry.working_shape`."""
    training_short_side: int | None = Field(None, gt=0)
    """Median short side of the training images as they came, in pixels: the natural side of a tile."""
    cam_range: tuple[float, float]
    """CAM activations that are drawn as 0 and as 1: one scale for all images, so that pictures compare."""
    provenance: Provenance
    parity: tuple[Parity, ...] = ()

    @field_validator("short_side")
    @classmethod
    def _whole_strides(cls, value: int) -> int:
        if value % STRIDE:
            raise ValueError(f"must be a multiple of {STRIDE}")
        return value


def to_metadata(spec: ModelSpec) -> dict[str, str]:
    """Give the metadata entries of a model file."""
    return {METADATA_KEY: spec.model_dump_json()}


def from_metadata(metadata: Mapping[str, str], where: str) -> ModelSpec:
    """Read the `ModelSpec` from a model file's metadata.

    Args:
        metadata: The file's metadata entries.
        where: The file, for the messages.

    Raises:
        ModelError: No alserve model, a newer format, or fields that do not fit.
    """
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{where}: an ONNX file, but not an alserve model (no '{METADATA_KEY}' metadata); "
            "make one with 'alserve export'"
        )
    try:
        fields = json.loads(metadata[METADATA_KEY])
        version = int(fields["format_version"])
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{where}: the alserve metadata is damaged; export the model again") from None
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{where}: model format {version} is newer than this alserve reads ({FORMAT_VERSION}); "
            "run 'pip install --upgrade alserve'"
        )
    try:
        return ModelSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{where}: the alserve metadata does not fit ({place}: {first['msg']})") from None


def default_model() -> Path:
    """Find the model to use where none was named.

    Returns:
        `$ALSERVE_MODEL`; else the one `.onnx` file in `./models`; else the demo model that comes with the package.

    Raises:
        ModelError: `./models` holds several, or none is to be found.
    """
    if named := os.environ.get("ALSERVE_MODEL"):
        return Path(named)
    here = sorted(Path("models").glob("*.onnx"))
    if len(here) > 1:
        names = ", ".join(path.name for path in here)
        raise ModelError(f"models/ holds several models ({names}); name one with --model or $ALSERVE_MODEL")
    package = Path(__file__).parent
    for path in (*here, package / "models" / "demo.onnx", package.parent / "models" / "demo.onnx"):
        if path.is_file():
            return path
    raise ModelError("no model: name one with --model or $ALSERVE_MODEL, or put one in models/")
