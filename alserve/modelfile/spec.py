"""What serving needs to know of a model, and where the model comes from: the JSON object in a model file's metadata."""

import unicodedata
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from alserve.arrays import Float32
from alserve.geometry import STRIDE

FORMAT_VERSION = 1

MAX_CLASSES = 1000
MAX_SHORT_SIDE = 4096
"""Pixels; the network of a larger working size would not fit into memory."""

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

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came after alserve 0.2, which refuses a file with a field that it does not know."""

    @model_serializer(mode="wrap")
    def _leave_out(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what came later where it is as before."""
        values: dict[str, object] = write(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in values.items()
            if name not in self.later or value not in ([], fields[name].default)
        }


class Parity(_Frozen):
    """Largest absolute difference between the exported and the trained network on real images."""

    batch: Count
    height: Count
    width: Count
    max_difference: float


class Provenance(_Frozen):
    """How the model came to be; all that is needed to judge it, and to train it again."""

    encoder: Text
    decoder: Text | None = None
    """Not known of files of alserve 0.2."""
    method: Text
    seed: Count
    rounds: Count
    masks_used: Count
    """Every mask an expert gave, those of validation images included."""
    train_images: Count
    test_dice: float | None = None
    test_iou: float | None = None
    test_accuracy: float | None = None
    test_foreground_dice: float | None = None
    """Mean Dice of the test images with foreground; stored, as the next two, where some test images have none."""
    test_found: float | None = None
    """Share of the test images with foreground in which predicted and true mask overlap."""
    test_false_alarms: float | None = None
    """Share of the test images without foreground in which some is predicted."""
    data_fingerprint: Text
    versions: dict[Text, Text] = Field(max_length=100)

    later = frozenset({"decoder", "test_foreground_dice", "test_found", "test_false_alarms"})


Precision = Literal["fp32", "fp16", "int8"]

CamStride = Literal[16, 32]

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

    def describe(self) -> list[tuple[str, str]]:
        """Return it as (name, value) pairs for people."""
        pairs = {
            "Dice": self.dice,
            "IoU": self.iou,
            "accuracy": self.accuracy,
            "size, MB": self.megabytes,
            "images/s, one thread": self.images_per_second,
        }
        return [
            ("compared with fp32", f"on {self.images} images of split '{self.split}'"),
            *((name, f"{before:.3f} -> {after:.3f}") for name, (before, after) in pairs.items() if before is not None),
            ("same label", f"{self.label_agreement:.3f}"),
            ("mask IoU with fp32", f"{self.mask_iou:.3f}"),
            ("largest score difference", f"{self.max_score_difference:.4f}"),
        ]


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
    empty_classes: Annotated[tuple[Name, ...], Field(max_length=MAX_CLASSES)] = ()
    """Classes that were said to have no foreground; a file without such classes does not have this field."""
    cam_stride: CamStride = 32
    """Pixels, a side, that a cell of a class activation map stands for; a file does not have this field if it is 32."""

    later = frozenset({"empty_classes", "cam_stride"})

    @field_validator("cam_range")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the low end is above the high end")
        return value

    @field_validator("empty_classes")
    @classmethod
    def _of_the_classes(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in info.data.get("classes", value)]:
            raise ValueError(f"{unknown[0][:40]!r} is none of the classes")
        return value


class Outputs(NamedTuple):
    """What the network returns for one batch."""

    scores: Float32
    """[batch, classes], softmax, 0 to 1."""
    cams: Float32
    """[batch, classes, height / s, width / s], s being `ModelSpec.cam_stride`; activations without a bound."""
    mask: Float32
    """[batch, height, width], foreground probability, 0 to 1."""
