"""One training by Lightning, in one process or in several that share every batch."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader

from alserve.terminal import interruptible
from training.data.augmentation import Crops
from training.distributed.group import Group
from training.distributed.ranks import Ranks
from training.model.network import JointNet
from training.model.phases import ClassifierPhase, SegmenterPhase
from training.model.progress import StepBar
from training.settings import Settings

AnyPhase = TypeVar("AnyPhase", ClassifierPhase, SegmenterPhase)

LOADERS = 8
"""Processes at most that cut and colour the crops of one sequence for a GPU; no more than this run has cores."""


@dataclass(frozen=True)
class Fit(Generic[AnyPhase]):
    """A training, as every process needs it to do its part.

    Args:
        phase: What a step computes.
        net: The network; trained in place.
        settings: What to learn with.
        crops: What is looked at: a sequence, or several by the names that the phase has for them.
        seed: Drives dropout, and whatever else a step draws.
        what: What to call it on the progress bar.
        accelerator: "cpu" or "gpu", one for each process.
        precision: Lightning's name of the numbers' precision.
    """

    phase: type[AnyPhase]
    net: JointNet
    settings: Settings
    crops: Crops | Mapping[str, Crops]
    seed: int
    what: str
    accelerator: str
    precision: str

    def __call__(self, group: Group) -> AnyPhase:
        """Train with the processes of a group; return the phase, as it is afterwards.

        Raises:
            KeyboardInterrupt: By Ctrl-C or SIGTERM: after the step that is being done, by a second Ctrl-C at once.
        """
        phase = self.phase(self.net, self.settings)
        phase.ranks = group.ranks
        lightning.seed_everything(self.seed, workers=True, verbose=False)
        phase.to(memory_format=torch.channels_last)
        with _quiet(), _threads_kept(), _interruptible() as stop:
            loader = (
                _loader(self.crops, group.ranks, self.accelerator)
                if isinstance(self.crops, Crops)
                else CombinedLoader(
                    {name: _loader(one, group.ranks, self.accelerator) for name, one in self.crops.items()}, "min_size"
                )
            )
            trainer = lightning.Trainer(
                accelerator=self.accelerator,
                devices=group.devices,
                num_nodes=group.nodes,
                strategy="auto"
                if group.ranks.size == 1
                else DDPStrategy(
                    static_graph=True,  # every step uses the same layers, which need not be all
                    broadcast_buffers=False,  # all processes have the same
                ),
                plugins=[group.environment],
                use_distributed_sampler=False,
                precision=self.precision,  # type: ignore[arg-type]
                max_epochs=1,
                deterministic="warn",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=[stop, *([StepBar(self.what)] if group.ranks.rank == 0 else [])],
            )
            trainer.fit(phase, loader)
        phase.net.eval().cpu()
        return phase


def _loader(crops: Crops, ranks: Ranks, accelerator: str) -> DataLoader[dict[str, Tensor]]:
    """Return the batches, of each the part of this process.

    Without GPUs several processes use all cores already. A copy of a process of a group, which has threads, may hang:
    workers are started anew there.
    """
    on_gpu, part = accelerator == "gpu", crops.batch // ranks.size
    batches = [list(range(start, start + part)) for start in range(ranks.rank * part, len(crops), crops.batch)]
    workers = min(LOADERS, torch.get_num_threads()) if on_gpu else int(ranks.size == 1)
    start = "forkserver" if on_gpu and ranks.size > 1 else None
    return DataLoader(
        crops, batch_sampler=batches, num_workers=workers, pin_memory=on_gpu, multiprocessing_context=start
    )


@dataclass
class _Stop(lightning.Callback):
    """Ends a training after a step.

    Args:
        asked: Set when it is to end.
    """

    asked: threading.Event

    def on_train_batch_end(self, *_args: object) -> None:
        """End it, if it is to end."""
        if self.asked.is_set():
            raise KeyboardInterrupt


@contextmanager
def _interruptible() -> Iterator[_Stop]:
    """Yield what Ctrl-C ends a training by: Lightning and loaders are in no state to be interrupted at any time.

    Lightning would end the process with 1, and a loader whose worker is interrupted tells of that instead.
    """
    with interruptible() as asked:
        try:
            yield _Stop(asked)
        finally:
            if asked.is_set():
                raise KeyboardInterrupt from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's hints, which are not for our users."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Let Lightning part the cores among the processes of a training, and only for so long."""
    threads, named = torch.get_num_threads(), "OMP_NUM_THREADS" in os.environ
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if not named:
            os.environ.pop("OMP_NUM_THREADS", None)
