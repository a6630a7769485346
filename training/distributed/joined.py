"""Several processes that are connected by `torch.distributed`."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from torch import distributed

from alserve.errors import RunError
from training.distributed.group import Group
from training.distributed.ranks import Ranks

Result = TypeVar("Result")
Job = Callable[[Group], Result]

AGAIN = "the same command continues the run"

JOINING = timedelta(minutes=30)
"""How long processes that have started wait for those that have not."""

PATIENCE = timedelta(days=3650)
"""How long they wait for work: the first one may wait for a person's masks meanwhile."""


class JoinedGroup(Group):
    """One of several processes.

    Args:
        ranks: How many they are, and which is this one.
        devices: How many there are on each machine.
        environment: How Lightning knows them.
        accelerator: "cpu" or "gpu".
    """

    def __init__(self, ranks: Ranks, devices: int, environment: ClusterEnvironment, accelerator: str) -> None:
        super().__init__(ranks, devices, environment)
        self.accelerator = accelerator
        self._control: Any = None
        self._busy = False

    def join(self, where: str) -> None:
        """Connect the processes; returns when all are there.

        Args:
            where: URL of the place where they meet, see `torch.distributed.init_process_group`.

        Raises:
            RunError: One did not come, or this process is of another such group.
        """
        if distributed.is_initialized():
            raise RunError("torch.distributed is in use in this process already; train in another")
        backend = "nccl" if self.accelerator == "gpu" else "gloo"
        rank, size = self.ranks.rank, self.ranks.size
        try:
            distributed.init_process_group(backend, where, rank=rank, world_size=size, timeout=JOINING)
            self._control = distributed.new_group(backend="gloo", timeout=PATIENCE)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise RunError(f"process {rank + 1} of {size}: the others cannot be reached ({reason}); {AGAIN}") from None

    def run(self, job: Job[Result]) -> Result:
        """See `Group.run`."""
        self._busy = True
        try:
            self._exchange(job)
            result = job(self)
        except RuntimeError as error:
            raise self._explained(error) from None
        self._busy = False
        return result

    def serve(self) -> None:
        """Do what the first process is asked to do, until there is no more.

        Raises:
            RunError: Another process has ended.
            SystemExit: The first one has ended with an error, which it has told.
        """
        try:
            while callable(job := self._exchange(None)):
                job(self)
        except RuntimeError as error:
            raise self._explained(error) from None
        self.leave()
        if job:
            raise SystemExit(job)

    def close(self, code: int) -> None:
        """End the others' `serve`, in the first process.

        Args:
            code: The exit code of those that end because of an error; 0 where there is none.
        """
        if self._control is not None and not self._busy:
            with suppress(RuntimeError):  # one that has ended before needs no more
                self._exchange(code)
        self.leave()

    def leave(self) -> None:
        """Close the connections."""
        if self._control is not None:
            self._control = None
            distributed.destroy_process_group()

    def what_is_lost(self) -> str:
        """Say in a few words which process has ended."""
        return "another process of the training has ended"

    def _exchange(self, message: Job[Result] | int | None) -> Any:  # noqa: ANN401
        """Return the message of the first process."""
        messages = [message]
        distributed.broadcast_object_list(messages, src=0, group=self._control)
        return messages[0]

    def _explained(self, error: RuntimeError) -> Exception:
        """Return the error of a process that was left alone as one line; any other as it is."""
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            return RunError(f"{self.what_is_lost()}; {AGAIN}")
        return error
