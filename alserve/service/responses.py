"""The JSON of the answers, and its schema; both follow the registry of outputs."""

import base64
import json
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from alserve.images.decoders import Decoded
from alserve.outputs import OUTPUTS, Case, Output
from alserve.outputs.rle import encode_rle
from alserve.predictor import Prediction
from alserve.service.options import Fraction, PredictOptions

EXAMPLE: dict[str, Any] = {
    "label": "malignant",
    "scores": {"benign": 0.08, "malignant": 0.92},
    "width": 775,
    "height": 522,
    "threshold": 0.5,
    "foreground": 0.31,
    "warning": None,
    "mask": {"png": "iVBORw0KGgo="},
    "cam": {"png": "iVBORw0KGgo=", "class": "malignant"},
}
"""A `PredictResponse`."""

_RLE = {
    "type": "object",
    "description": "A mask as COCO's compressed run lengths, as pycocotools reads them.",
    "required": ["rle"],
    "properties": {
        "rle": {
            "type": "object",
            "required": ["size", "counts"],
            "properties": {
                "size": {
                    "type": "array",
                    "description": "Height and width in pixels.",
                    "items": {"type": "integer"},
                    "minItems": 2,
                    "maxItems": 2,
                },
                "counts": {"type": "string"},
            },
        }
    },
}


def _file_key(output: Output) -> str:
    """Return the key under which an answer holds the file of an output: what the file's name ends with."""
    return output.suffix.removeprefix(".")


def _is_json(output: Output) -> bool:
    return output.media_type.endswith(("/json", "+json"))


def _is_text(output: Output) -> bool:
    return output.media_type.startswith("text/")


def _file_schema(output: Output) -> dict[str, Any]:
    """Return the schema of an output: its file, as JSON or text or else in base64, and its `Output.details`."""
    kind = {"type": "string", "contentMediaType": output.media_type}
    file = (
        {"type": "object"} if _is_json(output) else kind if _is_text(output) else kind | {"contentEncoding": "base64"}
    )
    return {
        "type": "object",
        "description": output.description,
        "required": [_file_key(output)],
        "properties": {_file_key(output): file},
        "additionalProperties": {"type": "string"},
    }


def _add_outputs(schema: dict[str, Any]) -> None:
    del schema["additionalProperties"]
    schema["properties"] |= {name: _file_schema(output) for name, output in OUTPUTS.items()}
    schema["properties"]["mask"] = {"anyOf": [schema["properties"]["mask"], _RLE]}


class PredictResponse(BaseModel):
    """What the model predicts for one image, with the outputs that were asked for."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_add_outputs)

    label: str = Field(description="The class with the highest score.")
    scores: dict[str, Fraction] = Field(description="Score by class, 0 to 1, sum 1.")
    width: int = Field(description="Width of the image, and of every picture, in pixels.")
    height: int = Field(description="Height of the image, and of every picture, in pixels.")
    threshold: Fraction = Field(description="Probability above which a pixel is foreground.")
    foreground: Fraction = Field(description="Share of the pixels that are foreground, 0 to 1.")
    warning: str | None = Field(description="What one should know of how the image was read.")


class ErrorResponse(BaseModel):
    """Why there is no answer."""

    error: str


class NamedPredictResponse(PredictResponse):
    """The answer for one of several images."""

    name: str = Field(description="The file's name, as it was sent.")


class NamedErrorResponse(ErrorResponse):
    """Why there is no answer for one of several images."""

    name: str = Field(description="The file's name, as it was sent.")
    status: int = Field(description="The HTTP status that the image alone would have got.")


class PredictBatchResponse(BaseModel):
    """Answers for several images, in order."""

    results: list[NamedPredictResponse | NamedErrorResponse]


def prediction_json(decoded: Decoded, prediction: Prediction, options: PredictOptions) -> dict[str, Any]:
    """Build the `PredictResponse` for one image.

    Args:
        decoded: The image; at its own size where `options.needs_image`.
        prediction: What the model predicts for it.
        options: What was asked for.

    Returns:
        The fields of the response, ready for JSON.
    """
    case = Case(decoded.pixels, prediction, options.post, stated_um_per_pixel=decoded.um_per_pixel)
    return {
        "label": prediction.label,
        "scores": prediction.scores,
        "width": prediction.width,
        "height": prediction.height,
        "threshold": case.threshold,
        "foreground": np.count_nonzero(case.mask) / case.mask.size,
        "warning": case.warning(decoded.warning),
        **{name: _output_json(name, case, options) for name in options.include},
    }


def _output_json(name: str, case: Case, options: PredictOptions) -> dict[str, Any]:
    if name == "mask" and options.mask_format == "rle":
        return {"rle": encode_rle(case.mask)}
    output = OUTPUTS[name]
    data = output.encode(case)
    content = (
        json.loads(data) if _is_json(output) else data.decode() if _is_text(output) else base64.b64encode(data).decode()
    )
    return {_file_key(output): content, **output.details(case)}
