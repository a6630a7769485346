"""Label Studio's ML backend protocol: what it sends, and what a prediction is for it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError

from alserve.certainty import certainty
from alserve.errors import OptionError, describe_fault
from alserve.images.decoders import Decoded
from alserve.label_studio.config import FOREGROUND, Control, read_config
from alserve.label_studio.regions import choice_region, mask_regions
from alserve.predictor import Prediction
from alserve.registry import suggest
from alserve.runtime.engine import Engine
from alserve.service.options import Fraction

MOST_TASKS = 1000
"""Tasks in one request."""

Message = TypeVar("Message", bound=BaseModel)


class Setup(BaseModel):
    """What Label Studio sends when a backend is connected, and before predictions; more fields are passed over."""

    label_config: str = Field(alias="schema", description="The labelling configuration, XML.")


class Task(BaseModel):
    """A task of Label Studio; more fields are passed over."""

    data: dict[str, Any] = Field(description="The address of the image, under the name that the configuration has.")


class Tasks(BaseModel):
    """A request for predictions; more fields are passed over."""

    tasks: Annotated[list[Task], Field(min_length=1, max_length=MOST_TASKS)]
    label_config: str = Field(description="The labelling configuration, XML.")


class Event(BaseModel):
    """Something that happened in Label Studio; more fields are passed over."""

    action: str = Field("", description="What happened.")


class Health(BaseModel):
    """The service is there, and its model works."""

    status: str
    model_class: str


class Version(BaseModel):
    """The model."""

    model_version: str = Field(description="The beginning of the model file's SHA-256.")


class Versions(BaseModel):
    """The models: one."""

    versions: list[str]


class Nothing(BaseModel):
    """An answer without content."""


class TaskPrediction(Version):
    """The prediction for one task."""

    result: list[dict[str, Any]] = Field(description="Regions.")
    score: Fraction = Field(
        description="How certain the prediction is: 1 less the mean binary entropy of the mask's pixels, in bits; "
        "where only the class is asked for, its score."
    )


class TaskError(BaseModel):
    """Why there is no prediction for one task; Label Studio logs it, and asks again later."""

    error: str
    status: int = Field(description="The HTTP status that the image alone would have got.")


class TaskPredictions(BaseModel):
    """A prediction or an error for each task, in order."""

    results: list[TaskPrediction | TaskError]


EXAMPLE: dict[str, Any] = {
    "results": [
        {
            "model_version": "alserve-3f2a1b9c0d4e",
            "result": [
                {
                    "id": "tag-1",
                    "type": "brushlabels",
                    "from_name": "tag",
                    "to_name": "image",
                    "original_height": 522,
                    "original_width": 775,
                    "image_rotation": 0,
                    "value": {"format": "rle", "rle": [0, 24, 176, 160], "brushlabels": ["foreground"]},
                }
            ],
            "score": 0.87,
        },
        {"error": "the task has no image where the labelling configuration says", "status": 400},
    ]
}
"""A `TaskPredictions`."""


def read_message(kind: type[Message], body: bytes) -> Message:
    """Read the JSON of a request.

    Raises:
        OptionError: It is no JSON, or something in it is missing or wrong; says what.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or "the request's JSON"
    raise OptionError(f"{place[:80]}: {describe_fault(first['msg'])}")


def version_of(engine: Engine) -> str:
    """Return what Label Studio knows the model by: another model file, another version."""
    return f"alserve-{engine.sha256[:12]}"


@dataclass(frozen=True)
class Wanted:
    """What a labelling configuration wants of a prediction, and this model has."""

    key: str
    """Where a task's data has the address of the image."""
    mask: Control | None
    choices: tuple[Control, ...]

    @classmethod
    def of(cls, label_config: str, classes: tuple[str, ...]) -> Self:
        """Return what is wanted: of the first image for which the model has something, brush before polygons.

        Args:
            label_config: The labelling configuration.
            classes: The model's.

        Raises:
            OptionError: The configuration cannot be read, or wants nothing that the model has.
        """
        controls = read_config(label_config)
        known = [control for control in controls if control.fits(classes)]
        if not known:
            labels = dict.fromkeys(label for control in controls for label in control.labels)
            raise OptionError(
                f"the labelling configuration has no BrushLabels or PolygonLabels of an image with the one label "
                f"{FOREGROUND}, and no labels or Choices that are classes of the model"
                + (f" ({suggest(next(iter(labels))[:40], classes)})" if labels else "")
            )
        image = known[0].image
        masks = [it for it in known if it.kind != "Choices" and it.image == image]
        masks.sort(key=lambda control: control.kind)  # BrushLabels before PolygonLabels
        choices = tuple(it for it in known if it.kind == "Choices" and it.image == image)
        return cls(known[0].key, masks[0] if masks else None, choices)

    def encoder(self, engine: Engine) -> Callable[[Decoded, Prediction], str]:
        """Return what makes the JSON of a `TaskPrediction` of an image's prediction."""
        version = version_of(engine)

        def encode(_: Decoded, prediction: Prediction) -> str:
            name, shape, score = prediction.label, (prediction.height, prediction.width), prediction.class_scores.max()
            regions = []
            if self.mask:
                score = certainty(prediction.working_probability)
                if label := self.mask.label_of(name, engine.spec.classes):
                    regions += mask_regions(self.mask, label, prediction.mask())
            for control in self.choices:
                if label := control.label_of(name, engine.spec.classes):
                    regions.append(choice_region(control, label, shape))
            return json.dumps({"model_version": version, "result": regions, "score": float(score)})

        return encode
