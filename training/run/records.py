"""The files of a run: its configuration, its figures, its times. Reading them needs no torch."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from alserve.errors import RunError
from training.settings import with_present_names

TIMINGS = "timings.jsonl"


class Stored(BaseModel):
    """Fields that are read again, with whatever a later or earlier version stored beside them."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Settings(Stored):
    method: str
    query: str = "random"
    rounds: Count
    seed: Count

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: object) -> object:
        return with_present_names(values) if isinstance(values, dict) else values


class _Config(Stored):
    source: str
    masks: str | None = None
    oracle: str = "data"
    fingerprint: str
    classes: list[str] = []
    train_images: Count = 0
    encoder_weights: str | None = None
    settings: _Settings


class _Class(Stored):
    images: Count
    masks: Count
    accuracy: Share | None = None
    dice: Share | None = None
    iou: Share | None = None
    with_foreground: Count
    foreground_dice: Share | None = None
    found: Share | None = None
    empty: Count
    false_alarms: Share | None = None


class _Round(Stored):
    round: Count
    masks_used: Count
    pseudo_labels: Count
    pseudo_dice: Share | None = None
    threshold: Share
    threshold_reason: str = ""
    asked: list[str] = []
    test_dice: Share | None = None
    test_iou: Share | None = None
    test_accuracy: Share | None = None
    test_foreground_dice: Share | None = None
    test_foreground_dice_interval: list[Share] | None = None
    test_found: Share | None = None
    test_false_alarms: Share | None = None
    test_auroc: Share | None = None
    test_classes: dict[str, _Class] = {}


class _Time(Stored):
    round: Count
    seconds: Annotated[float, Field(ge=0)]


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of a run, of this version or an earlier one: its settings have their present names.

    Raises:
        RunError: There is no run, or its configuration is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise RunError(f"{folder}: holds no training run; make one with 'alserve train'")
    try:
        return _Config.model_validate(json.loads(path.read_bytes())).model_dump()
    except (ValueError, RecursionError):
        raise RunError(f"{path}: is damaged, or not a run's; name another --out") from None


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """Read a run's figures, one object a finished round; none before the first is finished.

    Raises:
        RunError: The file is damaged.
    """
    path = folder / "rounds.jsonl"
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    rounds = []
    for number, line in enumerate(lines, start=1):
        try:
            rounds.append(_Round.model_validate(json.loads(line)).model_dump(exclude_unset=True))
        except (ValueError, RecursionError):
            raise RunError(
                f"{path}: line {number} is damaged; 'alserve train' with the same --out writes the file anew"
            ) from None
    return rounds


def read_seconds(folder: Path) -> dict[int, float]:
    """Read the time that passed in each round, in seconds, while the run was running.

    Round 0 is what precedes the first: reading the data, the classifier, the neighbours. Lines that a kill cut short
    are left out.
    """
    path = folder / TIMINGS
    seconds: dict[int, float] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with suppress(ValueError, RecursionError):
            time = _Time.model_validate(json.loads(line))
            seconds[time.round] = seconds.get(time.round, 0.0) + time.seconds
    return seconds
