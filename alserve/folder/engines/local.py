"""The processor or the GPU of this machine: as many threads as cores, one model for all."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from threading import Event

from alserve.folder.engines import ENGINES, LOCAL, Batch, Setup, load_model
from alserve.folder.manifest import ManifestRow
from alserve.folder.run import Options, segment_batch
from alserve.images.decoders import Decoders
from alserve.parallel import ordered_map
from alserve.places.store import AT_STORE
from alserve.predictor import Predictor
from alserve.runtime.device import available_cores


class LocalEngine:
    """See `alserve.folder.engines.Engine`; rows come in the order of the images.

    Args:
        predictor: The model.
        decoders: What decodes the images.
        workers: Batches worked on at once.
    """

    counts_tiles = True

    def __init__(self, predictor: Predictor, decoders: Decoders, workers: int) -> None:
        self.predictor = predictor
        self.batch_size = predictor.engine.batch_size
        self._decoders, self._workers = decoders, workers

    def describe(self) -> str:
        """See `alserve.folder.engines.Engine.describe`."""
        engine = self.predictor.engine
        return f"{engine.path.name} on {engine.device} ({engine.device_reason}), {self._workers} at once"

    def map(self, batches: Iterable[Batch], options: Options, stop: Event) -> Iterator[Sequence[ManifestRow]]:
        """See `alserve.folder.engines.Engine.map`; batches that are begun are finished."""
        begun = takewhile(lambda _: not stop.is_set(), batches)
        return ordered_map(
            lambda batch: segment_batch(self.predictor, self._decoders, batch, options), begun, self._workers
        )


@ENGINES.add(LOCAL)
@contextmanager
def open_local(setup: Setup) -> Iterator[LocalEngine]:
    """Load the model on this machine."""
    cores = setup.threads or available_cores()
    workers = min(setup.threads or cores * (AT_STORE if setup.waits else 1), setup.images) or 1
    decoding = min(cores, setup.images) or 1
    with Decoders(decoding, setup.decode_timeout) as decoders:  # they start while the model is loaded
        inside = max(1, min(cores, available_cores()) // workers)
        yield LocalEngine(load_model(setup, setup.device, inside), decoders, workers)
