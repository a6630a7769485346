"""The processes of a training: the first runs Algorithm 1, the others join it in every training step.

So all that is read, asked for, written and said is the first one's; the others hold nothing that could be lost.
"""

from collections.abc import Callable
from typing import TypeVar

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from training.distributed.ranks import Ranks

Result = TypeVar("Result")


class Numbered(LightningEnvironment):
    """A process of this machine whose number is known, whatever the environment variables say.

    Args:
        rank: The number, from 0.
    """

    def __init__(self, rank: int = 0) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True

    def local_rank(self) -> int:
        """Return its number on this machine."""
        return self._rank

    def node_rank(self) -> int:
        """Return the machine's number: there is one."""
        return 0

    def teardown(self) -> None:
        """Leave the environment variables as they are."""


class Group:
    """One of the processes that train together, with what it knows of the others.

    Args:
        ranks: How many they are, and which is this one.
        devices: How many there are on each machine.
        environment: How Lightning knows them.
    """

    def __init__(self, ranks: Ranks, devices: int, environment: ClusterEnvironment) -> None:
        self.ranks = ranks
        self.devices = devices
        self.environment = environment

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.ranks.size // self.devices

    def run(self, job: Callable[["Group"], Result]) -> Result:
        """Do a job in all processes; return what the first, this one, returns.

        Args:
            job: Called with a process's group; the others are sent a copy of it.

        Raises:
            RunError: One of them has ended.
        """
        return job(self)


ALONE = Group(Ranks(), 1, Numbered())
"""A process alone."""
