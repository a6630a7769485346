"""What runs on the machines of a Ray cluster: an actor with a model, its threads, and processes that decode images.

Ray tells of an error that comes out of an actor by a traceback of many lines. So none does: an error that is to end the
run is returned in place of rows.
"""

import os
import socket
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from alserve import __version__
from alserve.errors import AlserveError, DeviceError, ModelError, RunError
from alserve.folder.engines import Batch
from alserve.folder.manifest import ManifestRow
from alserve.folder.planned import PlannedImage
from alserve.folder.run import Options, segment_batch
from alserve.images.decoders import Decoders
from alserve.parallel import ordered_map
from alserve.places.place import Place, Version
from alserve.predictor import Predictor, load


@dataclass(frozen=True)
class Job:
    """What the actors of a run have in common."""

    version: str
    """Of the alserve that the run was started with."""
    model: str
    """Name of the model file."""
    sha256: str
    """Hash of the model file."""
    device: str
    threads: int
    decode_timeout: float
    self_check: bool
    options: Options
    cwd: str
    """The folder that paths of the run are relative to."""
    out: Place
    """Where the results go."""
    token: str
    """The name of a file there, by which an actor knows the place."""
    secret: bytes
    """What is in it."""
    witness: tuple[PlannedImage, Version] | None
    """One of the images: who sees it as it is sees the input."""


class Actor:
    """One process of a run on a cluster; Ray calls it with block after block of batches.

    Args:
        job: What all actors have in common.
        model: The bytes of the model file; a reference of Ray's to them stands for them.
    """

    def __init__(self, job: Job, model: bytes) -> None:
        self._job = job
        self._opened = ExitStack()  # ends with the process
        self._error: AlserveError | None = None
        try:
            with suppress(OSError):  # the token tells
                os.chdir(job.cwd)
            _check_version(job)
            _check_storage(job)
            self._decoders = self._opened.enter_context(Decoders(job.threads, job.decode_timeout))
            self._predictor = _load(job, model)
        except Exception as error:  # noqa: BLE001  see the module
            self._error = _here(error)

    def do(self, block: Sequence[Batch]) -> list[ManifestRow] | AlserveError:
        """Do the batches of a block, and return their rows, or an error that is to end the run."""
        found: list[ManifestRow] = []
        try:
            if self._error is None:
                for rows in ordered_map(self._do, block, self._job.threads):
                    found += rows
        except Exception as error:  # noqa: BLE001  see the module
            self._error = _here(error)
        return self._error or found

    def _do(self, batch: Batch) -> list[ManifestRow]:
        return segment_batch(self._predictor, self._decoders, batch, self._job.options)


def _here(error: Exception) -> AlserveError:
    """Return an error as one that names this machine."""
    where = f"on machine {socket.gethostname()}"
    if isinstance(error, AlserveError):
        return type(error)(f"{where}: {error}")
    words = (str(error).splitlines() or [""])[0]  # a fault of this program, or of a library
    return RunError(f"{where}: {type(error).__name__} in the run: {words}")


def _check_version(job: Job) -> None:
    """Check the alserve of a machine, which may have joined after the run was started."""
    if __version__ != job.version:
        raise DeviceError(
            f"alserve {__version__} is installed, {job.version} where the run was started; install the same"
        )


def _check_storage(job: Job) -> None:
    """Check that this machine sees the same input and output as the one that the run was started on."""
    try:
        same = job.out.read(job.token, len(job.secret)) == job.secret
    except FileNotFoundError:
        same = False
    except OSError as error:  # a store that this machine has no credentials for
        raise RunError(f"{_whole(job.out, job.token)}: cannot be read here: {error.strerror}") from None
    if not same:
        raise RunError(
            f"{_whole(job.out)} is another folder here than where the run was started; give an --out that all machines "
            "of the cluster share"
        )
    if job.witness is None:
        return
    image, version = job.witness
    if image.place.look(image.source) != version:
        raise RunError(
            f"{_whole(image.place, image.source)} is not here, or is another file than where the run was started; the "
            "images must lie where all machines of the cluster see them"
        )


def _whole(place: Place, name: str = "") -> str:
    """Return the whole path of a file, or its URL."""
    path = place.local(name)
    return str(path.absolute()) if path else place.path(name)


def _load(job: Job, data: bytes) -> Predictor:
    """Load the model from its bytes, so that its file need not be on storage that all machines share."""
    with tempfile.TemporaryDirectory(prefix="alserve-") as folder:
        path = Path(folder) / job.model
        path.write_bytes(data)
        predictor = load(path, device=job.device, threads=1, self_check=job.self_check)
    if predictor.engine.sha256 != job.sha256:
        raise ModelError(f"{job.model}: has changed since the run was started; start it again")
    return predictor
