"""The contract between training and serving: what the metadata of a model file says.

A model file is one self-contained ONNX file. Input `images`: uint8 [batch, height, width, 3], RGB, height and
width multiples of 32, all dynamic. Outputs: `scores` float32 [batch, classes], softmax; `cams` float32 [batch,
classes, h, w], one class activation map a class; `mask` float32 [batch, height, width], foreground probability.
The metadata holds one JSON object, a `ModelSpec`, under the key `alserve`, and under `alserve_sha256` the hash of the
network and this object together, so that a file that was damaged on its way is noticed.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from alserve.errors import ModelError
from alserve.geometry import STRIDE

FORMAT_VERSION = 1
METADATA_KEY = "alserve"
DIGEST_KEY = "alserve_sha256"

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
    test_iou: float | None = None
    test_accuracy: float | None = None
    data_fingerprint: str
    versions: dict[str, str]


Precision = Literal["fp32", "fp16", "int8"]

Pair = tuple[float, float]


class Cost(_Frozen):
    """What a reduced precision costs; pairs are (in float32, in this precision)."""

    split: str
    """The images that it was measured on."""
    images: int
    dice: Pair | tuple[None, None]
    iou: Pair | tuple[None, None]
    accuracy: Pair
    label_agreement: float
    """Share of the images that get the same label from both."""
    mask_iou: float
    """IoU of the two masks of an image, the mean over all."""
    max_score_difference: float
    megabytes: Pair
    images_per_second: Pair
    """Prediction alone, one thread of the machine that exported."""


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
    precision: Precision = "fp32"
    cost: Cost | None = None
    """Known of reduced precisions only."""

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


_METADATA = 14
"""Number of the field of ONNX's ModelProto that holds the metadata."""


def seal(model: bytes, spec: ModelSpec) -> bytes:
    """Give a model file: an ONNX model with its contract, in place of one that it may have had.

    Args:
        model: The bytes of an ONNX model.
        spec: The contract.
    """
    entries = to_metadata(spec)
    network, _ = _parts(model)
    entries[DIGEST_KEY] = _digest(network, entries[METADATA_KEY])
    fields = (_field(_METADATA, _field(1, key.encode()) + _field(2, text.encode())) for key, text in entries.items())
    return model + b"".join(fields)  # protobuf joins messages that follow each other; the last value holds


def unseal(data: bytes, where: str) -> ModelSpec:
    """Read the contract of a model file, and check that the file is as it was written.

    Args:
        data: The model file.
        where: Where it came from, for messages.

    Raises:
        ModelError: It is no model of ours, damaged, or of a newer format.
    """
    try:
        network, metadata = _parts(data)
    except (ValueError, IndexError):
        raise ModelError(f"{where}: not an ONNX model, or cut short; copy or export it again") from None
    spec = from_metadata(metadata, where)
    if metadata.get(DIGEST_KEY) != _digest(network, metadata[METADATA_KEY]):
        raise ModelError(f"{where}: damaged, its content does not match its hash; copy or export it again")
    return spec


def _digest(network: Iterable[memoryview], spec: str) -> str:
    digest = hashlib.sha256(spec.encode())
    for part in network:
        digest.update(part)
    return digest.hexdigest()


def _parts(data: bytes) -> tuple[list[memoryview], dict[str, str]]:
    """Give the metadata of an ONNX file, and all its other fields as they stand in it."""
    network: list[memoryview] = []
    metadata: dict[str, str] = {}
    for number, content, whole in _fields(memoryview(data)):
        if number == _METADATA:
            entry = {name: bytes(text).decode() for name, text, _ in _fields(content)}
            metadata[entry.get(1, "")] = entry.get(2, "")
        else:
            network.append(whole)
    return network, metadata


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Go through the fields of a protobuf message; give number, content and all bytes of each."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004  the last byte of a number
                return value

    while at < len(message):
        begin = at
        number, kind = divmod(varint(), 8)
        start = at
        match kind:
            case 0:
                varint()
            case 1 | 5:
                at += 8 if kind == 1 else 4
            case 2:
                length = varint()
                start, at = at, at + length
            case _:
                raise ValueError("no protobuf message")
        if at > len(message):
            raise ValueError("cut short")
        yield number, message[start:at], message[begin:at]


def _field(number: int, content: bytes) -> bytes:
    """Write one protobuf field that has a length."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    rest, low = divmod(value, 0x80)
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


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
