"""What a stopped run needs to continue, and a network's weights as they are saved."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from alserve.arrays import Grey

Weights = Mapping[str, Tensor]


@dataclass
class State:
    """What is saved of a run after every pass: a stopped run repeats one pass at most."""

    round: int = 1
    """The present round, from 1."""
    passes: int = 0
    """Number of passes of this round that are done."""
    asked: list[list[int]] = field(default_factory=list)
    """Images the oracle was asked for, one list a round, without those that it would not draw."""
    threshold: float = 0.5
    threshold_reason: str = ""
    """Why it is this one."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """The lines of `rounds.jsonl`."""
    pseudo: Mapping[int, Grey] = field(default_factory=dict)
    """P with its pseudo-masks, see `training.learning.pseudo`: uint8 [height, width], of the working size."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The network after the last pass."""


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a network's weights in main memory, by name."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in net.state_dict().items()
    }
