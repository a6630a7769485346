"""What runs a model file: one library a module, found in `RUNTIMES` by the name of the device that a user asks for.

`--device`, `ALSERVE_DEVICE`, the choice of "auto" and `alserve doctor` read this registry. A library is imported when a
model is opened on it, so that the names cost nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from alserve.arrays import Float32, UInt8
from alserve.errors import DeadlineError
from alserve.registry import Registry


class Model(NamedTuple):
    """What a library is to open, and how it will be used."""

    data: bytes
    """The model file."""
    path: Path
    """Where it came from, for messages."""
    number: int
    """Which of several devices of this kind, from 0."""
    threads: int
    """Threads inside one call, on the CPU."""
    callers: int
    """Calls at once that the cores are enough for."""


class Runtime(Protocol):
    """A model that is loaded and ready; `run` may be called from many threads at once."""

    inputs: tuple[str, ...]
    """Names of the network's inputs, in the file's order."""
    outputs: tuple[str, ...]
    """Names of its outputs, in the file's order."""
    precision: str
    """What the network computes in, where the library chooses that; else "as exported"."""
    version: str
    """The library's name and version."""

    def run(self, images: UInt8, deadline: float | None = None) -> Sequence[Float32]:
        """Run one batch.

        Args:
            images: uint8 [batch, height, width, 3].
            deadline: Time of `time.monotonic`, in seconds, at which the run is stopped.

        Returns:
            The outputs in the file's order.

        Raises:
            DeadlineError: The deadline passed.
        """


def _no_obstacle() -> None:
    return None


@dataclass(frozen=True)
class Backend:
    """A library on one kind of device.

    Args:
        description: One line for help texts.
        open: Loads a model; raises `ModelError` where the file cannot be run, `DeviceError` where the device cannot be
            used. It never falls back to another device.
        obstacle: Returns why it cannot be used on this machine and what to do; None if nothing is seen to.
        packages: Names of the distributions that the library comes in.
        numbered: There can be several such devices, which are asked for as NAME:0, NAME:1 and so on.
        preference: "auto" chooses, of the devices without an obstacle, the one with the highest. Default: only used
            where it is asked for.
        batch_size: Images a network call that suit it.
        remarks: What a user should know of a model here, by the model's precision.
    """

    description: str
    open: Callable[[Model], Runtime]
    obstacle: Callable[[], str | None] = _no_obstacle
    packages: tuple[str, ...] = ()
    numbered: bool = False
    preference: int | None = None
    batch_size: int = 1
    remarks: Mapping[str, str] = field(default_factory=dict)


RUNTIMES: Registry[Backend] = Registry("device", __name__)
"""All libraries on all kinds of devices, by the device's name."""


def too_late() -> DeadlineError:
    """Return the error of a run that was stopped."""
    return DeadlineError("the network was stopped: there was no more time")


def first_line(error: Exception) -> str:
    """Return the first line of what a library says."""
    return str(error).strip().splitlines()[0]
