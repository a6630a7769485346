"""What can be asked of the service, and what it answers: the source of its OpenAPI description too."""

import base64
from collections import Counter
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.datastructures import QueryParams

from alserve.arrays import UInt8
from alserve.drawing import overlay
from alserve.errors import OptionError
from alserve.images.codec import encode_png, to_grey
from alserve.outputs.rle import encode_rle
from alserve.service.pipeline import Case

Fraction = Annotated[float, Field(ge=0, le=1)]
Part = Literal["mask", "cam", "overlay", "probability"]


class Options(BaseModel):
    """Query options of an endpoint; those it does not know are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, query: QueryParams) -> Self:
        """Check the options of a request.

        Raises:
            OptionError: The message names the option, what is wrong with it, and what is allowed.
        """
        counts = Counter(name for name, _ in query.multi_items())
        if twice := next((name for name, count in counts.items() if count > 1), None):
            raise OptionError(f"option {twice[:40]!r} comes more than once; give it one value")
        try:
            return cls.model_validate(dict(query))
        except ValidationError as error:
            first = error.errors()[0]
        name = first["loc"][0]
        if first["type"] == "extra_forbidden":
            raise OptionError(f"unknown option {name!r}; allowed: {', '.join(cls.model_fields) or 'none'}")
        raise OptionError(f"option {name!r} cannot be {str(first['input'])[:40]!r}: {first['msg']}")


class MaskOptions(Options):
    """Options where there is a mask."""

    threshold: Fraction | None = Field(
        None, description="Probability above which a pixel is foreground. Default: the model's own."
    )


class PredictOptions(MaskOptions):
    """Options of `POST /predict` and `POST /predict_batch`."""

    include: Annotated[
        tuple[Part, ...], BeforeValidator(lambda text: text.split(",") if isinstance(text, str) and text else ())
    ] = Field(("mask", "cam"), description="Which pictures to answer, with commas; may be empty.")
    mask_format: Literal["png", "rle"] = Field("png", description="PNG, or COCO's compressed run lengths.")


class CamOptions(Options):
    """Options of `POST /cam`."""

    label: str | None = Field(None, description="The class whose map is wanted. Default: the predicted one.")


class Png(BaseModel):
    """A PNG picture of the image's own size, in base64."""

    png: str


class Rle(BaseModel):
    """A mask as COCO's compressed run lengths, as pycocotools reads them."""

    size: tuple[int, int] = Field(description="Height and width in pixels.")
    counts: str


class RleMask(BaseModel):
    """A mask as run lengths."""

    rle: Rle


class Cam(Png):
    """A class activation map."""

    of: str = Field(alias="class", description="The class that it belongs to.")


class Answer(BaseModel):
    """What the model says of one image; pictures that were not asked for are left out."""

    label: str = Field(description="The class with the highest score.")
    scores: dict[str, Fraction] = Field(description="Score by class, 0 to 1, sum 1.")
    width: int = Field(description="Width of the image, and of every picture, in pixels.")
    height: int = Field(description="Height of the image, and of every picture, in pixels.")
    threshold: Fraction = Field(description="Probability above which a pixel is foreground.")
    foreground: Fraction = Field(description="Share of the pixels that are foreground, 0 to 1.")
    warning: str | None = Field(description="What one should know of how the image was read.")
    mask: Png | RleMask | None = Field(None, description="8-bit PNG, 0 and 255, or run lengths.")
    cam: Cam | None = Field(None, description="Activation of the predicted class: 8-bit PNG, 0 to 255 on one scale.")
    overlay: Png | None = Field(None, description="The image with the mask's outline: RGB PNG.")
    probability: Png | None = Field(None, description="Foreground probability: 8-bit PNG, 0 to 255 for 0 to 1.")


class Refusal(BaseModel):
    """Why there is no answer."""

    error: str


class NamedAnswer(Answer):
    """The answer for one of several images."""

    name: str = Field(description="The file's name, as it was sent.")


class NamedRefusal(Refusal):
    """Why there is no answer for one of several images."""

    name: str = Field(description="The file's name, as it was sent.")
    status: int = Field(description="The HTTP status that the image alone would have got.")


class Answers(BaseModel):
    """Answers for several images, in order."""

    results: list[NamedAnswer | NamedRefusal]


def describe(case: Case, options: PredictOptions) -> dict[str, Any]:
    """Build the `Answer` for one image.

    Args:
        case: The image and what the model says of it.
        options: What was asked for.

    Returns:
        The fields of `Answer`, ready for JSON.
    """
    prediction = case.prediction
    mask = prediction.mask(options.threshold)
    answer: dict[str, Any] = {
        "label": prediction.label,
        "scores": prediction.scores,
        "width": prediction.width,
        "height": prediction.height,
        "threshold": prediction.spec.threshold if options.threshold is None else options.threshold,
        "foreground": np.count_nonzero(mask) / mask.size,
        "warning": case.warning,
    }
    if "mask" in options.include:
        answer["mask"] = {"rle": encode_rle(mask)} if options.mask_format == "rle" else _png(to_grey(mask))
    if "cam" in options.include:
        answer["cam"] = {**_png(prediction.cam_grey()), "class": prediction.label}
    if "overlay" in options.include:
        answer["overlay"] = _png(overlay(case.image, mask))
    if "probability" in options.include:
        answer["probability"] = _png(to_grey(prediction.probability()))
    return answer


def _png(pixels: UInt8) -> dict[str, str]:
    return {"png": base64.b64encode(encode_png(pixels)).decode()}
