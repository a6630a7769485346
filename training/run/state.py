"""Where a run is: all that a stopped run needs to continue."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from alserve.arrays import Grey

Weights = Mapping[str, Tensor]


@dataclass
class State:
    """Where a run is. Saved after every pass, in one file, so that a stopped run repeats one pass at most."""

    round: int = 1
    """The round at work, from 1."""
    passes: int = 0
    """Passes of this round that are done."""
    asked: list[list[int]] = field(default_factory=list)
    """Images the oracle was asked for, one list a round, without those that it would not draw."""
    threshold: float = 0.5
    records: list[dict[str, Any]] = field(default_factory=list)
    """What `rounds.jsonl` holds."""
    pseudo: dict[int, Grey] = field(default_factory=dict)
    """P with its pseudo-masks, see `training.learning.pseudo`: uint8 [height, width], of the working size."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The network after the last pass."""
