"""Which Dice a report leads with, and what it says of each class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alserve.measure.evaluate import ClassFigures
from training.report.statistics import spread_of
from training.run.result import Round


@dataclass(frozen=True)
class Measure:
    """A Dice that rounds have."""

    key: str
    """Its name in `rounds.jsonl`."""
    name: str
    """Its name in figures and tables."""


MEAN = Measure("test_dice", "Test Dice")
"""Over all test images; of an empty image an empty mask counts 1."""

FOREGROUND = Measure("test_foreground_dice", "Test Dice of images with foreground")


def measure_of(rounds: Iterable[Round]) -> Measure:
    """Choose the Dice for rounds that are shown together.

    Args:
        rounds: Those of one run, or of all that are compared.

    Returns:
        That of the images with foreground where some test image is empty and all rounds with a Dice have it; else that
        of all images, which is the same where no image is empty.
    """
    measured = [record for record in rounds if record.get(MEAN.key) is not None]
    known = all(record.get(FOREGROUND.key) is not None for record in measured)
    return FOREGROUND if known and any(has_empty(record) for record in measured) else MEAN


def has_empty(record: Round) -> bool:
    """Tell whether some test image of a round is known to be empty."""
    return record.get("test_false_alarms") is not None


def classes_of(record: Round) -> dict[str, ClassFigures]:
    """Return what a round's record has of each class; nothing of one written by an earlier version."""
    found = record.get("test_classes") or {}
    return {name: ClassFigures.model_validate(values) for name, values in found.items()}


def mean_figures(runs: Sequence[ClassFigures]) -> ClassFigures:
    """Return the means of several runs' measures on the same images.

    Args:
        runs: At least one.
    """
    shares = ("accuracy", "dice", "iou", "foreground_dice", "found", "false_alarms")
    means = {name: spread.mean for name in shares if (spread := spread_of(getattr(run, name) for run in runs))}
    return runs[0].model_copy(update=means)
