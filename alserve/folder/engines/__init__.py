"""What does the batches of a folder run: one engine a module, found by name in `ENGINES`.

An engine only maps batches of images to rows of the manifest, and writes the images' output files. What is to be done,
the manifest, progress and the end of a run are the same for all (`alserve.folder.run`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Protocol

from alserve.folder.manifest import ManifestRow
from alserve.folder.planned import PlannedImage
from alserve.places.place import Place
from alserve.places.urls import Location
from alserve.predictor import Predictor, load
from alserve.registry import Registry
from alserve.terminal import say

if TYPE_CHECKING:
    from alserve.folder.run import Options

Batch = Sequence[PlannedImage]
"""Images of one network call."""

LOCAL = "local"


@dataclass(frozen=True)
class Setup:
    """What an engine is opened with."""

    model: Location | Predictor
    """Model file, or a loaded model."""
    out: Place
    """Where the results go."""
    manifest: str
    """The name of the run's manifest there."""
    images: int
    """Number of images of the run."""
    device: str
    """See `alserve.runtime.device.choose_device`."""
    threads: int | None
    """Images or batches worked on at once, in each process that has a model. Default: what suits the engine."""
    decode_timeout: float
    """Seconds that decoding an image may take."""
    self_check: bool
    """Refuse a model whose answers are not those of the trained network."""
    waits: bool = False
    """Whether images come from or go to an object store, for which a core would wait most of the time."""
    address: str | None = None
    """Where a cluster is reached. Default: what suits the engine."""


class Engine(Protocol):
    """What does the batches of a run."""

    predictor: Predictor
    """The model, as this process has it."""
    batch_size: int
    """Images a network call that suit the device."""
    counts_tiles: bool
    """Whether the tiles of an image are counted while it is being done (`Tiling.on_tiles`)."""

    def describe(self) -> str:
        """Say in a few words what runs where."""

    def map(self, batches: Iterable[Batch], options: "Options", stop: Event) -> Iterator[Sequence[ManifestRow]]:
        """Do batches, and return a row for each image as batches are done, in any order.

        Args:
            batches: What to do.
            options: What to make.
            stop: When set, no further batch is begun.

        Raises:
            AlserveError: Something stands in the way of all images.
        """


ENGINES: Registry[Callable[[Setup], AbstractContextManager[Engine]]] = Registry("engine", "alserve.folder.engines")
"""How each engine is opened, by its name."""


def load_model(setup: Setup, device: str, threads: int) -> Predictor:
    """Load the model of a run, unless it is loaded.

    Args:
        setup: What the engine is opened with.
        device: See `alserve.runtime.device.choose_device`.
        threads: Threads inside one prediction.

    Raises:
        ModelError: The model cannot be used.
        DeviceError: The device cannot be used.
    """
    if isinstance(setup.model, Predictor):
        return setup.model
    predictor = load(setup.model, device=device, threads=threads, self_check=setup.self_check)
    if note := predictor.engine.unchecked:
        say(note)
    return predictor
