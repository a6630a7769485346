"""The published results (arXiv:2010.04889): test Dice of every method, seed and round on two data sets."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import mean

from pydantic import BaseModel, ConfigDict

Points = list[tuple[int, float]]
"""A curve: (masks used, test Dice 0 to 1)."""


class Published(BaseModel):
    """The published figures on one data set. Its budgets leave out the masks that were used for validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    classes: tuple[str, ...] | int
    """Their names, or their number."""
    train_images: int
    initial: int
    """Masks of the first round, all classes together."""
    per_round: int
    """Masks of every further round."""
    dice: dict[str, list[list[float]]]
    """Test Dice, %, by method: one list a seed, one value a round."""

    def points(self, method: str) -> Points:
        """Return a method's mean over the seeds; empty for a method that was not published, one point for a bound."""
        rounds = zip(*self.dice.get(method, []), strict=True)
        return [(self.initial + number * self.per_round, mean(values) / 100) for number, values in enumerate(rounds)]


@cache
def published() -> tuple[Published, ...]:
    """Read the published figures (arXiv:2010.04889, Figure 5 and Table 3): GlaS and CUB-200-2011."""
    content = json.loads(Path(__file__).with_suffix(".json").read_text())
    return tuple(Published.model_validate(values) for values in content["sets"])


def published_for(classes: Sequence[str], train_images: int) -> Published | None:
    """Find what was published on data with these classes and so many training images."""
    for found in published():
        known = tuple(classes) if isinstance(found.classes, tuple) else len(classes)
        if (known, train_images) == (found.classes, found.train_images):
            return found
    return None
