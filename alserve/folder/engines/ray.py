"""All machines of a Ray cluster: blocks of batches go to actors, which have one model each.

Names go to the actors in small blocks, rows of the manifest come back; pixels never travel. The driver has the blocks
that are under way, and no more, so that a run may have more names than its memory.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from threading import Event
from typing import Any

from alserve import __version__
from alserve.errors import RunError
from alserve.files import temporary
from alserve.folder.engines import ENGINES, Batch, Setup, load_model
from alserve.folder.engines.ray_actor import Actor, Job
from alserve.folder.engines.ray_cluster import Cluster, connected
from alserve.folder.engines.ray_pool import Pool
from alserve.folder.manifest import ManifestRow
from alserve.folder.run import Options
from alserve.modelfile import read_model
from alserve.places.place import Place
from alserve.predictor import Predictor
from alserve.runtime.libraries import RUNTIMES

MOST_IN_BLOCK = 64
"""Batches that go to an actor together, at most: what a lost machine costs, and how often the driver is asked."""

BLOCKS_PER_ACTOR = 8
"""Blocks for each actor, at least, so that all end at about the same time."""


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
        import ray  # noqa: PLC0415  an extra

        setup, cluster, engine = self._setup, self._cluster, self.predictor.engine
        size = max(1, min(MOST_IN_BLOCK, setup.images // self.batch_size // (BLOCKS_PER_ACTOR * cluster.actors)))
        blocks = in_blocks(batches, 1 if options.tiling else size)
        first = next(blocks, None)
        if first is None:
            return
        looked = ((image, image.look()) for batch in first for image in batch)
        witness = next(((image, version) for image, version in looked if version), None)
        data = read_model(engine.location)
        token = temporary(Path(setup.manifest)).name  # the next run removes what a killed one leaves on a disk
        job = Job(
            __version__,
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
            actor, model = ray.remote(num_cpus=cluster.threads, num_gpus=cluster.gpus)(Actor), ray.put(data)

            def start() -> Any:  # noqa: ANN401  Ray's types are of an extra
                return actor.remote(job, model)

            with Pool(start, lambda: min(cluster.room(), setup.images)) as pool:
                yield from pool.do(chain([first], blocks), stop)
        finally:
            with suppress(OSError):
                setup.out.remove(token)


def in_blocks(batches: Iterable[Batch], size: int) -> Iterator[Sequence[Batch]]:
    """Return batches in blocks of some size, as they are asked for."""
    rest = iter(batches)
    while block := list(islice(rest, size)):
        yield block


def _write(out: Place, name: str, data: bytes) -> None:
    try:
        out.write(name, data)
    except OSError as error:
        raise RunError(f"{out.path(name)}: cannot be written: {error.strerror}") from None


@ENGINES.add("ray")
@contextmanager
def open_ray(setup: Setup) -> Iterator[RayEngine]:
    """Load the model here, to check it and to know it, and reach the cluster, or start Ray on this machine."""
    predictor = load_model(setup, "cpu", 1)
    with connected(setup) as cluster:
        yield RayEngine(setup, cluster, predictor)
