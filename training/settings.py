"""The settings of a training run, validated, and the presets. Reading it needs no torch."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from alserve.errors import DataError, describe_fault
from alserve.geometry import STRIDE
from alserve.modelfile import CamStride
from alserve.registry import suggest
from training.query import STRATEGIES

MOST, MOST_SIDE = 1_000_000, 4096
"""Upper limits of numbers (masks, rounds, steps and so on) and of the working size: what is larger is a mistake."""

Targets = Literal["hard", "soft"]
PixelWeighting = Literal["all", "weighted", "certain"]
Written = BeforeValidator(lambda value: int(value) if isinstance(value, str) and value.isdecimal() else value)
"""Reads a whole number that is written as text, as on the command line."""

Stride = Annotated[Literal[1, 2, 4, 8, 16], Written]
Method = Literal["consistency", "label-propagation", "masks-only", "cams-only", "all-masks"]

METHODS: Mapping[Method, str] = {
    "consistency": "masks, and agreement on different views of all other images",
    "label-propagation": "masks, and pseudo-masks of similar images",
    "masks-only": "masks alone",
    "cams-only": "no mask at all: class activation maps in their place",
    "all-masks": "all masks there are, at once",
}
"""What each method learns from."""

PUBLISHED_AS: Mapping[str, str] = {"masks-only": "random", "cams-only": "wsl", "all-masks": "full"}
"""The paper's names of methods, where they differ from ours; earlier versions used them too."""

_OUR_NAMES = {published: ours for ours, published in PUBLISHED_AS.items()}
_RENAMED = {"upside_down": "any_orientation", "classifier_depth": "classifier_after"}
"""Settings of earlier versions, with their present names."""

_RENAMED_VALUES: Mapping[str, Mapping[Any, Any]] = {
    "method": _OUR_NAMES,
    "classifier_depth": {"last-stage": 16, "encoder": 1},
}
"""Values of settings under their earlier names, with their present ones."""


BEFORE_0_3: Mapping[str, Any] = {
    "decoder": "unet",
    "encoder_after": 1,
    "dice_weight": 0.0,
    "object_crops": 0.0,
    "cam_stride": 32,
    "classifier_cycles": 1,
}
"""What runs of earlier versions did, whose settings did not say so, where that is not the present default."""


def our_name(method: str) -> str:
    """Return our name of a method, whether it is called by ours or by the paper's."""
    return _OUR_NAMES.get(method, method)


def with_present_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the present names of settings and methods, where earlier ones or the paper's are used.

    Where a setting is there under both names, the later one counts.
    """
    renamed: dict[str, Any] = {}
    for name, value in values.items():
        known = _RENAMED_VALUES.get(name, {})
        renamed[_RENAMED.get(name, name)] = known.get(value, value) if isinstance(value, str) else value
    return renamed


class Settings(BaseModel):
    """The settings of a run; the defaults suit a few hundred images on a machine without a GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Method = "consistency"
    """What is learned from, see `METHODS`; the paper's names `random`, `wsl` and `full` are understood as well."""
    query: str = "random"
    """Which images the oracle is asked for, see `training.query`."""
    initial: int = Field(4, ge=1, le=MOST)
    """Masks asked for at first, per class."""
    per_round: int = Field(1, ge=1, le=MOST)
    """Masks asked for in every further round, per class."""
    rounds: int = Field(5, ge=1, le=MOST)
    """R; each round is one budget."""
    passes: int = Field(2, ge=1, le=MOST)
    """Trainings a round; each further one learns from the pseudo-masks of the one before. One without P."""
    empty_classes: tuple[str, ...] = ()
    """Classes without foreground, such as "normal", by rising name: their masks are known, and none is asked for."""
    seed: int = Field(0, ge=0, lt=2**63)

    encoder: str = "tf_efficientnet_lite0"
    decoder: str = "separable-unet"
    """A U-Net of separable convolutions, or a segmentation-models-pytorch architecture's: `training.model.decoders`."""
    pretrained: bool = True
    """Start from ImageNet weights, of an installed package or a model hub."""
    encoder_weights: Path | None = None
    """File of the encoder's first weights, see `training.model.weights`; then no hub is asked for any."""
    short_side: int = Field(256, ge=2 * STRIDE, le=MOST_SIDE, multiple_of=STRIDE)
    """Working size in pixels."""
    crop: int | None = Field(None, ge=STRIDE, multiple_of=STRIDE)
    """Side of the square crops that masks are learned from, in working pixels; 224, or the short side if less."""
    batch: int = Field(6, ge=2, le=MOST)
    """Images of a training step; where the encoder learns masks, those that have one."""
    class_batch: int = Field(4, ge=1, le=MOST)
    """Further images of a step, of D, where the encoder learns masks: their classes are taught on."""
    any_orientation: bool = True
    """Images have no up and down (tissue, materials): flip and rotate them in all directions while training."""

    cam_stride: Annotated[CamStride, Written] = 16
    """Pixels, a side, of a cell of the class activation maps; the paper's 32 is too coarse for small objects."""
    classifier_steps: int = Field(300, ge=1, le=MOST)
    """Training steps of the classifier phase, in each cycle of its learning rate."""
    classifier_cycles: int = Field(4, ge=1, le=MOST)
    """Cycles at most; each after the first only where it seems to be needed, see `training.model.trainer`."""
    classifier_lr: float = Field(5e-4, gt=0)
    """Learning rate of the encoder while it learns the classes; the CAM head's is four times that."""
    classifier_after: Stride = 4
    """Only layers after the encoder's feature map of this stride learn the classes: 1 is all, 16 the last stage."""
    steps: int = Field(600, ge=1, le=MOST)
    """Training steps of the segmentation phase, in each pass."""
    lr: float = Field(2e-3, gt=0)
    encoder_lr: float = Field(2e-4, ge=0)
    """Learning rate of encoder and CAM head in the segmentation phase; 0 keeps them frozen."""
    encoder_after: Stride = 4
    """Only layers after the encoder's feature map of this stride learn masks."""
    weight_decay: float = Field(1e-4, ge=0)
    dice_weight: float = Field(1.0, ge=0)
    """Weight of the Dice loss beside the cross-entropy of masks; the paper has none."""
    object_crops: float = Field(0.5, ge=0, le=1)
    """Share of the crops of images with a mask that are cut around one of its objects."""

    consistency_weight: float = Field(1.0, ge=0)
    """Weight of the loss between a strong view and the teacher's mask of the weak one."""
    certainty: float = Field(0.85, ge=0.5, le=1)
    """The teacher's probability, of either side, from which on a pixel teaches."""
    cam_gate: float = Field(0.4, gt=0, le=1)
    """With empty classes: height of a CAM over which the background of a teacher that finds too little teaches nothing,
    see `training.model.consistency`; 1: no gate."""
    teacher_momentum: float = Field(0.95, ge=0, lt=1)
    """Share of the teacher's weights that stays in each step, once more than 1 / (1 - momentum) steps are done."""
    cut_mix: float = Field(0.5, ge=0, le=1)
    """Share of the strong views that get a piece of another image."""

    k: float = Field(0.25, gt=0)
    """Number of nearest neighbours within a class among which P looks for L; below 1, a fraction of the class."""
    pseudo_weight: float = Field(0.5, ge=0)
    """lambda: weight of a pseudo-mask's loss; the paper's is 0.1 on GlaS and 0.001 on CUB."""
    pseudo_share: float = Field(0.25, gt=0, lt=1)
    """Share of every batch that is drawn from P, at most: no image of P comes more often than one of L."""
    pseudo_targets: Targets = "soft"
    """Targets of the loss in P: foreground or not (hard), or the probability itself (soft)."""
    pseudo_pixels: PixelWeighting = "all"
    """Weights of the loss of P's pixels: all equal, by the model's confidence, or of its certain pixels only."""
    pseudo_flips: bool = True
    """Average a pseudo-mask over the image's flips."""
    folds: int = Field(0, ge=0, le=MOST)
    """Parts of L in a cross-validation that estimates the threshold; 0: none, and the threshold is one half."""
    references: bool = True
    """Store pieces of training images in the model file, one a class up to four: it checks itself by them."""
    validation_masks: bool = False
    """Choose the threshold on split 'valid'; its masks count in the budget."""

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: object) -> object:
        return with_present_names(values) if isinstance(values, Mapping) else values

    @field_validator("empty_classes", mode="before")
    @classmethod
    def _one_alone(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("empty_classes")
    @classmethod
    def _sorted(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.query not in STRATEGIES:
            raise ValueError(f"unknown strategy '{self.query}'; {suggest(self.query, STRATEGIES)}")
        if self.folds == 1:
            raise ValueError("folds 1: nothing would be left to train on; 0 is no cross-validation, 2 its fewest parts")
        if self.crop is not None and self.crop > self.short_side:
            raise ValueError(f"crop {self.crop} is larger than the working size, short_side {self.short_side}")
        return self

    @property
    def crop_side(self) -> int:
        """Side of a training crop, in working pixels."""
        return self.crop or min(224, self.short_side)

    @property
    def mask_dropout(self) -> float:
        """Dropout of whole channels before the mask head, 0 to 1, as the query strategy needs it."""
        return STRATEGIES[self.query].mask_dropout

    @property
    def learns_from_pseudo(self) -> bool:
        """Whether the method uses pseudo-masks."""
        return self.method == "label-propagation"

    def with_foreground(self, classes: Iterable[str]) -> tuple[int, ...]:
        """Return which classes may have foreground, by their index: those that are not said to have none."""
        return tuple(label for label, name in enumerate(classes) if name not in self.empty_classes)

    @property
    def looks_at_all_images(self) -> bool:
        """Whether all images are looked at while masks are learned: for their classes, or for their views."""
        return self.encoder_lr > 0 or self.uses_consistency

    @property
    def uses_consistency(self) -> bool:
        """Whether images without a mask teach by their views."""
        return self.method == "consistency"

    @property
    def without_masks(self) -> bool:
        """Whether no pixel mask is used at all: class activation maps serve in their place."""
        return self.method == "cams-only"

    @property
    def learns_from_cams(self) -> bool:
        """Whether CAMs teach the mask: there is no other, but a class without foreground tells them from objects."""
        return self.without_masks and bool(self.empty_classes)

    @property
    def mask_from_cams(self) -> bool:
        """Whether the mask is the CAM itself: there is nothing to learn one from."""
        return self.without_masks and not self.learns_from_cams

    @property
    def all_masks_at_once(self) -> bool:
        """Whether every mask there is is asked for in one round."""
        return self.method == "all-masks"

    @property
    def pseudo_views(self) -> tuple[tuple[int, ...], ...]:
        """Axes along which an image is flipped, for each of the predictions that its pseudo-mask is the mean of."""
        ways: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (0, 1))
        return ways[: (4 if self.any_orientation else 2) if self.pseudo_flips else 1]

    @property
    def passes_a_round(self) -> int:
        """Trainings a round: one where there are no pseudo-masks to learn from."""
        return self.passes if self.learns_from_pseudo else 1

    @property
    def uses_validation_masks(self) -> bool:
        """Whether the masks of split 'valid' are asked for; never where no mask is used at all."""
        return self.validation_masks and not self.without_masks

    @property
    def schedule(self) -> list[int]:
        """Number of masks to ask for in each round, per class; for the two bounds a single round, of 0."""
        if self.without_masks or self.all_masks_at_once:
            return [0]
        return [self.initial] + [self.per_round] * (self.rounds - 1)

    @classmethod
    def among(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of a function's arguments, by name, that are settings and not None."""
        return {name: arguments[name] for name in cls.model_fields if arguments.get(name) is not None}

    @classmethod
    def of(
        cls,
        preset: str | None,
        given: Mapping[str, Any],
        written: Callable[[str, object], str] = "{}={}".format,
    ) -> Self:
        """Build settings from a preset's values, replaced by those given.

        Args:
            preset: One of `PRESETS`, or None.
            given: Values by the names of settings.
            written: Returns how the user writes a setting of this name and value, for messages.

        Raises:
            DataError: The preset is unknown, or a value does not fit.
        """
        if preset is not None and preset not in PRESETS:
            raise DataError(f"unknown preset '{preset}'; {suggest(preset, PRESETS)}")
        values = {**(PRESETS[preset] if preset else {}), **given}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        where = f"{written(name, first['input'])}: " if name else ""
        if first["type"] == "extra_forbidden":
            raise DataError(f"unknown setting '{name}'; {suggest(name, cls.model_fields)}")
        if first["type"] == "literal_error":
            allowed = [str(each) for each in get_args(cls.model_fields[name].annotation)]
            raise DataError(f"{where}unknown; {suggest(str(first['input']), allowed)}")
        raise DataError(f"{where}{describe_fault(first['msg'])}")


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """Read NAME=VALUE texts, as the command line has them.

    Raises:
        DataError: One has no "=".
    """
    pairs = [text.partition("=") for text in texts]
    for name, sign, _ in pairs:
        if not sign:
            raise DataError(f"--set {name}: write it as NAME=VALUE, such as --set k=0.1")
    return {name.strip().replace("-", "_"): value.strip() for name, _, value in pairs}


PRESETS: dict[str, dict[str, Any]] = {
    "glas": {"initial": 4, "per_round": 1, "rounds": 25, "encoder": "tf_efficientnet_lite2"},
    "cub": {"initial": 1, "per_round": 1, "rounds": 20, "pseudo_weight": 0.001, "any_orientation": False},
}
"""Budgets as published; encoders, sizes and steps are ours, for minutes in place of days, and so is lambda on GlaS."""
