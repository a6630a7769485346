"""A batch that several processes share: what depends on all of its images is computed of all of them.

Every process has its part of a batch, in the order of their ranks. Each computes the losses of the whole batch, which
`Ranks.whole` puts together; batch normalisation and dropout are those of the whole batch too. So several processes
learn what one does, but for rounding.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Ranks:
    """The processes that share a batch, and which of them this one is. The default is a process alone."""

    rank: int = 0
    """This process, from 0."""
    size: int = 1
    """Number of processes."""

    def whole(self, part: Tensor) -> Tensor:
        """Return the whole batch, of this process's part [batch / size, ...]: [batch, ...].

        Gradients are summed over the processes: where each derives the same loss of the whole batch, they are `size`
        times as large, which `torch.nn.parallel.DistributedDataParallel` takes the mean of.
        """
        return part if self.size == 1 else self.stack(part).flatten(0, 1)

    def own(self, whole: Tensor) -> Tensor:
        """Return this process's part [batch / size, ...] of a whole batch: [batch, ...]."""
        return whole.view(self.size, -1, *whole.shape[1:])[self.rank]

    def stack(self, part: Tensor) -> Tensor:
        """Return the values of all processes, which have one shape: [size, ...]."""
        values = part.new_zeros(self.size, *part.shape)
        values[self.rank] = part
        total: Tensor = _Sum.apply(values)
        return total

    def whole_batches(self) -> AbstractContextManager[object]:
        """Return a context in which batch normalisation and dropout, while training, are those of the whole batch."""
        return _WholeBatches(self) if self.size > 1 else nullcontext()


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:  # noqa: ANN401  of a library without types
        return _summed(values)

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        return _summed(*gradients)


def _summed(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


class _WholeBatches(TorchFunctionMode):
    """Takes the place of batch normalisation and dropout, whichever layers ask for them."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if kwargs.get("training"):
            if func is functional.batch_norm:
                return self._batch_norm(*args, **kwargs)
            if func in _DROPOUTS:
                return self._dropout(func, args[0], kwargs["p"])
        return func(*args, **kwargs)

    def _dropout(self, func: Callable[..., Tensor], values: Tensor, p: float) -> Tensor:
        """Draw for all images what one process would draw, and use this process's part."""
        ones = torch.ones_like(torch.cat([values.detach()] * self.ranks.size))
        return values * self.ranks.own(func(ones, p, training=True))

    def _batch_norm(
        self,
        values: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,  # noqa: ARG002, FBT001
        momentum: float,
        eps: float,
    ) -> Tensor:
        """Normalise [batch, channels, ...] by mean and variance of all images; see `functional.batch_norm`."""
        found = values.float()
        across = [axis for axis in range(found.ndim) if axis != 1]
        var, mean = torch.var_mean(found, across, correction=0)
        means, variances = self.ranks.stack(torch.stack([mean, var])).unbind(dim=1)
        mean = means.mean(dim=0)
        var = (variances + (means - mean).square()).mean(dim=0)
        if running_mean is not None and running_var is not None:
            count = self.ranks.size * found.numel() // found.shape[1]
            running_mean.lerp_(mean.detach(), momentum)
            running_var.lerp_(var.detach() * (count / (count - 1)), momentum)
        sides = (-1, *[1] * (found.ndim - 2))
        scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
        shift = torch.zeros_like(mean) if bias is None else bias
        return torch.addcmul(shift.view(sides), found - mean.view(sides), scale.view(sides)).to(values.dtype)


_DROPOUTS = frozenset({functional.dropout, functional.dropout1d, functional.dropout2d})
