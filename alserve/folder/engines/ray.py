"""All machines of a Ray cluster: Ray Data distributes blocks of batches over actors, one model an actor.

Names go to the actors in small blocks, rows of the manifest come back; pixels never travel. A block whose actor or
machine is lost is done again by another: output files are whole or not there, and a row is named by its image.
"""

import queue
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from alserve.errors import RunError
from alserve.files import temporary
from alserve.folder.engines import ENGINES, Batch, Setup, load_model
from alserve.folder.engines.ray_actor import BATCHES, ROWS, Actor, Job, dump_batches, load_row
from alserve.folder.engines.ray_cluster import Cluster, connected
from alserve.folder.manifest import ManifestRow
from alserve.folder.run import Options
from alserve.modelfile import read_model
from alserve.places.place import Place, Version
from alserve.predictor import Predictor
from alserve.runtime.libraries import RUNTIMES

if TYPE_CHECKING:
    from alserve.folder.planned import PlannedImage

MOST_IN_BLOCK = 64
"""Batches that go to an actor together, at most: what a lost machine costs, and how often the driver is asked."""

BLOCKS_PER_ACTOR = 8
"""Blocks for each actor, at least, so that all end at about the same time."""

_WAIT = 0.2
"""Seconds after which the driver looks whether it is to stop."""


class RayEngine:
    """See `alserve.folder.engines.Engine`; rows come as blocks are done.

    Args:
        setup: What it was opened with.
        cluster: What runs it.
        predictor: The model, as the driver has it.
    """

    counts_tiles = False

    def __init__(self, setup: Setup, cluster: Cluster, predictor: Predictor) -> None:
        self.predictor = predictor
        self.batch_size = RUNTIMES[cluster.device].batch_size
        self._setup, self._cluster = setup, cluster

    def describe(self) -> str:
        """See `alserve.folder.engines.Engine.describe`."""
        cluster = self._cluster
        return f"{self.predictor.engine.path.name} on {cluster.device}, {cluster.describe()}"

    def map(self, batches: Iterable[Batch], options: Options, stop: Event) -> Iterator[Sequence[ManifestRow]]:
        """See `alserve.folder.engines.Engine.map`; what is under way when it is to stop is lost."""
        import ray.data  # noqa: PLC0415  an extra

        setup, cluster, engine = self._setup, self._cluster, self.predictor.engine
        size = max(1, min(MOST_IN_BLOCK, setup.images // self.batch_size // (BLOCKS_PER_ACTOR * cluster.actors)))
        witness: tuple[PlannedImage, Version] | None = None
        blocks: list[bytes] = []
        rest = iter(batches)
        while block := list(islice(rest, 1 if options.tiling else size)):
            if witness is None:
                seen = ((image, image.look()) for batch in block for image in batch)
                witness = next(((image, version) for image, version in seen if version), None)
            blocks.append(dump_batches(block))
        if not blocks:
            return
        data = read_model(engine.location)
        token = temporary(Path(setup.manifest)).name  # the next run removes what a killed one leaves on a disk
        job = Job(
            engine.path.name,
            engine.sha256,
            cluster.device,
            cluster.threads,
            setup.decode_timeout,
            setup.self_check,
            options,
            str(Path.cwd()),
            setup.out,
            token,
            secrets.token_hex().encode(),
            witness,
        )
        try:
            _write(setup.out, token, job.secret)
            source = ray.data.from_items([{BATCHES: block} for block in blocks], override_num_blocks=len(blocks))
            blocks.clear()
            results = source.map_batches(
                Actor,
                fn_constructor_kwargs={"job": job, "model": ray.put(data)},
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=cluster.actors, initial_size=cluster.actors),
                batch_size=1,
                batch_format="numpy",
                num_cpus=cluster.threads,
                num_gpus=cluster.gpus,
            )
            reader = _Reader(results.iter_rows())
            reader.start()
            for row in reader.until(stop):
                yield [load_row(row[ROWS])]
        finally:
            with suppress(OSError):
                setup.out.remove(token)


def _write(out: Place, name: str, data: bytes) -> None:
    try:
        out.write(name, data)
    except OSError as error:
        raise RunError(f"{out.path(name)}: cannot be written: {error.strerror}") from None


class _Reader(Thread):
    """Reads rows from Ray: whoever waits there himself notices nothing else.

    Args:
        rows: What Ray returns.
    """

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        super().__init__(name="rows", daemon=True)
        self._rows = rows
        self._found: queue.Queue[dict[str, Any] | Exception | None] = queue.Queue(MOST_IN_BLOCK)
        self._left = Event()

    def run(self) -> None:
        """Read, until there is no more or nobody wants more; the end of the iteration ends the actors."""
        try:
            for row in self._rows:
                self._put(row)
                if self._left.is_set():
                    return
            self._put(None)
        except Exception as error:  # noqa: BLE001  Ray raises many unrelated types
            self._put(error)

    def _put(self, item: dict[str, Any] | Exception | None) -> None:
        while not self._left.is_set():
            with suppress(queue.Full):
                self._found.put(item, timeout=_WAIT)
                return

    def until(self, stop: Event) -> Iterator[dict[str, Any]]:
        """Return the rows as they come, until told to stop.

        Raises:
            RunError: Ray has ended the run.
        """
        try:
            while not stop.is_set():
                with suppress(queue.Empty):
                    item = self._found.get(timeout=_WAIT)
                    if item is None:
                        return
                    if isinstance(item, Exception):
                        words = next(filter(None, str(item).splitlines()), type(item).__name__)
                        raise RunError(f"Ray has ended the run: {words}; the same command continues it")
                    yield item
        finally:
            self._left.set()


@ENGINES.add("ray")
@contextmanager
def open_ray(setup: Setup) -> Iterator[RayEngine]:
    """Load the model here, to check it and to know it, and reach the cluster, or start Ray on this machine."""
    predictor = load_model(setup, "cpu", 1)
    with connected(setup) as cluster:
        yield RayEngine(setup, cluster, predictor)
