"""The contract between training and serving: what the metadata of a model file says.

A model file is one self-contained ONNX file. Input `images`: uint8 [batch, height, width, 3], RGB, height and
width multiples of 32, all dynamic. Outputs: `scores` float32 [batch, classes], softmax; `cams` float32 [batch,
classes, h, w], one class activation map a class; `mask` float32 [batch, height, width], foreground probability.
The metadata holds one JSON object, a `ModelSpec`, under the key `alserve`; under `alserve_references` some images with
the trained network's answers (`alserve.references`), unless they were left out; and under `alserve_sha256` the hash of
all of these and the network together, so that a file that was damaged on its way is noticed.

A model file may come from a stranger: whatever is wrong with it is one `ModelError`, found in bounded time.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from alserve.errors import ModelError
from alserve.files import irregular
from alserve.geometry import STRIDE
from alserve.protobuf import Budget, field, fields, needs_other_files
from alserve.references import Reference, read_references, write_references

FORMAT_VERSION = 1
METADATA_KEY = "alserve"
REFERENCES_KEY = "alserve_references"
DIGEST_KEY = "alserve_sha256"

INPUT = "images"
OUTPUTS = ("scores", "cams", "mask")

MAX_CLASSES = 1000
MAX_SHORT_SIDE = 4096
"""Pixels; the network of a larger working size would not fit into memory."""
MAX_SPEC = 1_000_000
"""Characters of the JSON object; a longer one is read as damaged."""

Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


def _plain(text: str) -> str:
    """Refuse what changes how other text is shown: control characters, line ends, lone surrogates."""
    if any(unicodedata.category(sign) in {"Cc", "Cs", "Zl", "Zp"} for sign in text):
        raise ValueError("control characters are not allowed")
    return text


Text = Annotated[str, Field(max_length=255), AfterValidator(_plain)]
Name = Annotated[Text, Field(min_length=1)]


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    seen = set[str]()
    for name in names:
        if (normal := unicodedata.normalize("NFC", name)) in seen:
            raise ValueError(f"{name[:40]!r} comes twice")
        seen.add(normal)
    return names


ClassNames = Annotated[tuple[Name, ...], Field(min_length=2, max_length=MAX_CLASSES), AfterValidator(_distinct)]
"""What a model may have for classes: short names without control characters, each another one."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Parity(_Frozen):
    """Largest absolute difference between the exported and the trained network on real images."""

    batch: Count
    height: Count
    width: Count
    max_difference: float


class Provenance(_Frozen):
    """How the model came to be; all that is needed to judge it, and to train it again."""

    encoder: Text
    method: Text
    seed: Count
    rounds: Count
    masks_used: Count
    """Every mask an expert gave, those of validation images included."""
    train_images: Count
    test_dice: float | None = None
    test_iou: float | None = None
    test_accuracy: float | None = None
    data_fingerprint: Text
    versions: dict[Text, Text] = Field(max_length=100)


Precision = Literal["fp32", "fp16", "int8"]

Pair = tuple[float, float]


class Cost(_Frozen):
    """What a reduced precision costs; pairs are (in float32, in this precision)."""

    split: Text
    """The images that it was measured on."""
    images: Count
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

    format_version: Count = FORMAT_VERSION
    classes: ClassNames
    threshold: Probability
    """A pixel is foreground where the mask probability is above this."""
    short_side: int = Field(gt=0, le=MAX_SHORT_SIDE, multiple_of=STRIDE)
    """Working size in pixels, see `alserve.geometry.working_shape`."""
    training_short_side: int | None = Field(None, gt=0, le=10**9)
    """Median short side of the training images as they came, in pixels: the natural side of a tile."""
    cam_range: tuple[float, float]
    """CAM activations that are drawn as 0 and as 1: one scale for all images, so that pictures compare."""
    provenance: Provenance
    parity: tuple[Parity, ...] = Field((), max_length=100)
    precision: Precision = "fp32"
    cost: Cost | None = None
    """Known of reduced precisions only."""

    @field_validator("cam_range")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the low end is above the high end")
        return value


def to_metadata(spec: ModelSpec) -> dict[str, str]:
    """Return the metadata entry of a contract."""
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
        found = json.loads(metadata[METADATA_KEY][:MAX_SPEC])
        version = int(found["format_version"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ModelError(f"{where}: the alserve metadata is damaged; export the model again") from None
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{where}: model format {str(version)[:20]} is newer than this alserve reads ({FORMAT_VERSION}); "
            "run 'pip install --upgrade alserve'"
        )
    try:
        return ModelSpec.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ascii(".".join(str(part) for part in first["loc"]))[1:-1][:80]
        raise ModelError(f"{where}: the alserve metadata does not fit ({place}: {first['msg']})") from None


_METADATA = 14
"""Number of the field of ONNX's ModelProto that holds the metadata."""


class Contract(NamedTuple):
    """What a model file says besides its network."""

    spec: ModelSpec
    references: tuple[Reference, ...]
    """Images with the trained network's answers; none in older files, and where they were left out."""


def seal(model: bytes, spec: ModelSpec, references: Sequence[Reference] | None = None) -> bytes:
    """Return a model file: an ONNX model with its contract, in place of one that it may have had.

    Args:
        model: The bytes of an ONNX model.
        spec: The contract.
        references: Images with the trained network's answers. Default: those that the model carries.
    """
    network, metadata = _parts(memoryview(model), Budget())
    entries = {METADATA_KEY: spec.model_dump_json()}
    if references:
        entries[REFERENCES_KEY] = write_references(references)
    elif references is None and REFERENCES_KEY in metadata:
        entries[REFERENCES_KEY] = metadata[REFERENCES_KEY]
    entries[DIGEST_KEY] = _digest(network, entries)
    written = (field(_METADATA, field(1, key.encode()) + field(2, text.encode())) for key, text in entries.items())
    return b"".join((*network, *written))


def unseal(data: bytes, where: str) -> Contract:
    """Read the contract of a model file, and check that the file is whole and as it was written.

    Args:
        data: The model file.
        where: Where it came from, for messages.

    Raises:
        ModelError: It is no model of ours, damaged, needs other files, or is of a newer format.
    """
    view, budget = memoryview(data), Budget()
    try:
        network, metadata = _parts(view, budget)
        needy = needs_other_files(view, budget)
    except ValueError:
        raise ModelError(f"{where}: not an ONNX model, or cut short; copy or export it again") from None
    spec = from_metadata(metadata, where)
    if metadata.get(DIGEST_KEY) != _digest(network, metadata):
        raise ModelError(f"{where}: damaged, its content does not match its hash; copy or export it again")
    if needy:
        raise ModelError(f"{where}: has weights in another file, which is not read; export it as one file")
    text = metadata.get(REFERENCES_KEY)
    return Contract(spec, read_references(text, len(spec.classes), where) if text else ())


def _digest(network: Iterable[memoryview], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(metadata[METADATA_KEY].encode())
    for part in network:
        digest.update(part)
    digest.update(metadata.get(REFERENCES_KEY, "").encode())
    return digest.hexdigest()


def _parts(data: memoryview, budget: Budget) -> tuple[list[memoryview], dict[str, str]]:
    """Return all fields of an ONNX file but its metadata, as they stand in it, and its metadata."""
    network: list[memoryview] = []
    metadata: dict[str, str] = {}
    for number, content, whole in fields(data, budget):
        if number == _METADATA:
            entry = {name: bytes(text).decode() for name, text, _ in fields(content, budget)}
            metadata[entry.get(1, "")] = entry.get(2, "")
        else:
            network.append(whole)
    return network, metadata


MAX_BYTES = 2**31
"""An ONNX file is smaller than this: protobuf reads no larger message."""


def read_model(path: Path) -> bytes:
    """Read a model file.

    Raises:
        ModelError: It cannot be read, is too large, or no file at all but a folder, a pipe or a device.
    """
    try:
        if kind := irregular(path):
            raise ModelError(f"{path}: the model cannot be read: it is a {kind}; name an .onnx file")
        if path.stat().st_size >= MAX_BYTES:
            raise ModelError(f"{path}: the model cannot be read: it is larger than 2 GB, no ONNX model is")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the model cannot be read: {error.strerror}") from error
    except ValueError:  # a null character in the name
        raise ModelError(f"{str(path)!r}: the model cannot be read: no such name can be") from None


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
