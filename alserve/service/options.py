"""Query options of the endpoints: checked, and described for OpenAPI."""

from collections import Counter
from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from starlette.datastructures import QueryParams

from alserve.errors import OptionError
from alserve.outputs import OUTPUTS, output_of
from alserve.postprocessing import MOST_SMOOTH, PostProcessing

Fraction = Annotated[float, Field(ge=0, le=1)]


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
    smooth: float = Field(
        0.0, ge=0, le=MOST_SMOOTH, description="Smooth the mask's edges: standard deviation in pixels."
    )
    fill_holes: bool = Field(default=False, description="Fill the holes of the mask.")
    min_area: int = Field(0, ge=0, description="Remove objects of the mask of fewer pixels.")

    @property
    def post(self) -> PostProcessing:
        """What is done to the mask."""
        return PostProcessing(**self.model_dump(include={field.name for field in fields(PostProcessing)}))


class ObjectOptions(MaskOptions):
    """Options where the objects of the mask may be in the answer."""

    split_touching: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Part objects of this width at least, in pixels, where they touch; the mask stays the same.",
    )
    um_per_pixel: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto"] | None = Field(
        None,
        description="Side of a pixel in micrometres, to measure objects in them, too; auto: what the file states.",
    )


def _known_outputs(text: object) -> tuple[str, ...]:
    """Read names of outputs, with commas between them; each counts once."""
    names = tuple(dict.fromkeys(text.split(","))) if isinstance(text, str) and text else ()
    for name in names:
        try:
            OUTPUTS.find(name)
        except OptionError as error:
            raise PydanticCustomError("output", "{text}", {"text": str(error)}) from None
    return names


def _known_format(text: object) -> object:
    """Read the name of an output, or the suffix of its files, as in `png` and `geojson`."""
    if isinstance(text, str) and text not in OUTPUTS:
        text = output_of(f".{text}") or text
    return _known_outputs(text)[0] if text else text


def _list_formats(schema: dict[str, Any]) -> None:
    schema["enum"] = list(OUTPUTS)


def _list_outputs(schema: dict[str, Any]) -> None:
    schema["items"]["enum"] = list(OUTPUTS)
    listed = "; ".join(f"{name}: {output.description}" for name, output in OUTPUTS.items())
    schema["description"] += f" {listed}."


class SegmentOptions(ObjectOptions):
    """Options of `POST /segment`."""

    format: Annotated[str, BeforeValidator(_known_format)] = Field(
        "mask",
        description="The output that is the answer, or the suffix of its files, as in png and geojson. Default: mask.",
        json_schema_extra=_list_formats,
    )


class PredictOptions(ObjectOptions):
    """Options of `POST /predict` and `POST /predict_batch`."""

    include: Annotated[tuple[str, ...], BeforeValidator(_known_outputs)] = Field(
        ("mask", "cam"),
        description="Outputs in the answer, separated by commas; may be empty. Default: mask,cam.",
        json_schema_extra=_list_outputs,
    )
    mask_format: Literal["png", "rle"] = Field(
        "png", description="Format of the mask: PNG, or COCO's compressed run lengths. Default: png."
    )

    @property
    def needs_image(self) -> bool:
        """Whether an output is drawn on the image itself, at its own size."""
        return any(OUTPUTS[name].draws_on_image for name in self.include)
