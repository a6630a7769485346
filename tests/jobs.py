"""Work for the processes of a group, which import this module."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from training.distributed.group import Group
from training.model.phases import Batch, ClassifierPhase, SegmenterPhase
from training.model.trainer import Trainer
from training.settings import Settings


@dataclass(frozen=True)
class Layer:
    """A layer in training, on a batch that the processes share: outputs and gradients of the whole batch."""

    layer: nn.Module
    values: Tensor

    def __call__(self, group: Group) -> dict[str, Tensor]:
        torch.manual_seed(0)
        ranks, layer = group.ranks, self.layer.train()
        values = self.values.clone().requires_grad_()
        with ranks.whole_batches():
            outputs = ranks.whole(layer(ranks.own(values)))
        outputs.square().mul(torch.arange(outputs.numel()).view_as(outputs)).mean().backward()
        assert values.grad is not None
        whole = _mean(values.grad, group)
        return {"outputs": outputs.detach(), "gradient": whole, **_learned(layer, group)}


@dataclass(frozen=True)
class Step:
    """One step of a phase: the loss of the whole batch, and its gradients."""

    phase: type[ClassifierPhase] | type[SegmenterPhase]
    settings: Settings
    batch: Mapping[str, Any]

    def __call__(self, group: Group) -> dict[str, Tensor]:
        net = Trainer(self.settings, "cpu").new_network(2, 0, empty_classes=[1])
        phase: Any = self.phase(net, self.settings)
        phase.ranks = group.ranks
        phase.setup("fit")
        torch.manual_seed(0)
        loss = phase.training_step(_part(self.batch, group), 1)
        loss.backward()
        return {"loss": loss.detach(), **_learned(net, group)}


def _part(batch: Mapping[str, Any], group: Group) -> Batch | Mapping[str, Batch]:
    return {
        name: _part(value, group) if isinstance(value, Mapping) else group.ranks.own(value)
        for name, value in batch.items()
    }


def _learned(module: nn.Module, group: Group) -> dict[str, Tensor]:
    """Gradients, as `DistributedDataParallel` takes their mean, and buffers."""
    gradients = {f"d {name}": each.grad for name, each in module.named_parameters() if each.grad is not None}
    return {**{name: _mean(each, group) for name, each in gradients.items()}, **dict(module.named_buffers())}


def _mean(values: Tensor, group: Group) -> Tensor:
    if group.ranks.size > 1:
        distributed.all_reduce(values)
    return values / group.ranks.size


def whole_of_each(group: Group) -> Tensor:
    """Each process adds its number."""
    return group.ranks.whole(torch.full((2,), group.ranks.rank, dtype=torch.uint8))


def killed(group: Group) -> Tensor:
    """All but the first process are killed, which the first notices by their silence."""
    if group.ranks.rank:
        os.kill(os.getpid(), signal.SIGKILL)
    return group.ranks.whole(torch.zeros(1))


class Turns(nn.Module):
    """Dropout of channels and of single values, one after the other."""

    def forward(self, values: Tensor) -> Tensor:
        return functional.dropout(functional.dropout2d(values, 0.3, training=True), 0.2, training=True)
