"""Reference images in a model file: a few small pieces of training images, and what the trained network says of them.

Nothing here is decoded by an image library, for a model file may come from a stranger: pixels are deflated rows,
inflated no further than their shape says.
"""

import base64
import zlib
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alserve.arrays import Float32, UInt8
from alserve.errors import ModelError
from alserve.geometry import STRIDE

MAX_IMAGES = 4
"""References of one file, at most."""

SIDE = 128
"""Height and width of a reference in pixels, at most; a multiple of `STRIDE`."""

_MAX_TEXT = 8_000_000
"""Characters of all references of a file; more are read as damaged."""

Side = Annotated[int, Field(ge=STRIDE, le=SIDE, multiple_of=STRIDE)]


class Reference(NamedTuple):
    """A piece of an image at the working size, and the answers of the trained network in float32."""

    image: UInt8
    """[height, width, 3], RGB, sides multiples of `STRIDE`."""
    scores: Float32
    """[classes], softmax, 0 to 1."""
    cams: Float32
    """[classes, height / s, width / s], see `alserve.modelfile.spec.Outputs`."""
    mask: Float32
    """[height, width], foreground probability, 0 to 1, in steps of 1/255 once it was stored."""


class _Stored(BaseModel):
    """A reference as JSON: arrays deflated, in base64."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    height: Side
    width: Side
    image: str
    scores: str
    cams: str
    mask: str


class _StoredList(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[_Stored, ...] = Field(min_length=1, max_length=MAX_IMAGES)


def write_references(references: Sequence[Reference]) -> str:
    """Return references as the text that a model file carries."""
    stored = [
        _Stored(
            height=reference.image.shape[0],
            width=reference.image.shape[1],
            image=_pack(_differences(reference.image)),
            scores=_pack(reference.scores.astype("<f4")),
            cams=_pack(reference.cams.astype("<f4")),
            mask=_pack(_differences(np.rint(reference.mask * 255).astype(np.uint8))),
        )
        for reference in references
    ]
    return _StoredList(images=tuple(stored)).model_dump_json()


def read_references(text: str, classes: int, cam_stride: int, where: str) -> tuple[Reference, ...]:
    """Read what `write_references` wrote.

    Args:
        text: The JSON text.
        classes: Classes of the model.
        cam_stride: See `alserve.modelfile.spec.ModelSpec`.
        where: The file, for messages.

    Raises:
        ModelError: The text does not fit.
    """
    try:
        images = _StoredList.model_validate_json(text[:_MAX_TEXT]).images
        return tuple(_unpacked(stored, classes, cam_stride) for stored in images)
    except (ValueError, zlib.error, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ModelError(f"{where}: its reference images do not fit ({reason}); export the model again") from None


def _unpacked(stored: _Stored, classes: int, cam_stride: int) -> Reference:
    height, width = stored.height, stored.width
    image = np.cumsum(_unpack(stored.image, np.uint8, (height, width, 3)), axis=0, dtype=np.uint8)
    mask = np.cumsum(_unpack(stored.mask, np.uint8, (height, width)), axis=0, dtype=np.uint8)
    scores = _unpack(stored.scores, np.dtype("<f4"), (classes,)).astype(np.float32)
    cells = (classes, height // cam_stride, width // cam_stride)
    cams = _unpack(stored.cams, np.dtype("<f4"), cells).astype(np.float32)
    if not (np.isfinite(scores).all() and np.isfinite(cams).all()):
        raise ValueError("answers that are not finite")
    return Reference(image, scores, cams, mask.astype(np.float32) / np.float32(255))


def _differences(array: UInt8) -> UInt8:
    """Return each row less the one above it, modulo 256: it deflates better."""
    return np.diff(array, axis=0, prepend=np.zeros_like(array[:1]))


def _pack(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def _unpack(text: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    if len(data) != size:
        raise ValueError(f"an array that is not of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape)
