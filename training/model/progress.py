"""How far a training is."""

import time
from contextlib import ExitStack

import lightning

from alserve.terminal import progress, say


class StepBar(lightning.Callback):
    """Shows Lightning's training steps as progress, and afterwards what came of them.

    Args:
        what: The training.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._open = ExitStack()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Open the bar."""
        self._started = time.monotonic()
        self._show = self._open.enter_context(progress(int(trainer.num_training_batches), self.what, "steps"))

    def on_train_batch_end(self, trainer: lightning.Trainer, *_args: object) -> None:
        """Show one step more."""
        self._show(trainer.global_step)

    def on_train_end(self, trainer: lightning.Trainer, *_args: object) -> None:
        """Close the bar; say the time and the last batch's figures."""
        self._open.close()
        figures = "".join(f", {name} {float(value):.2f}" for name, value in trainer.callback_metrics.items())
        say(f"{self.what}: {time.monotonic() - self._started:.0f} s{figures}")

    def on_exception(self, *_args: object) -> None:
        """Close the bar of a training that was interrupted, if it was open."""
        self._open.close()
