"""What runs on the machines of a Ray cluster: an actor with a model, its threads, and processes that decode images.

An error that comes out of an actor would end Ray's whole job with a traceback of many lines. So none does: an error
that is to end the run is returned in place of rows.
"""

import json
import os
import pickle
import socket
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alserve import errors
from alserve.errors import AlserveError, ModelError, RunError
from alserve.folder.engines import Batch
from alserve.folder.manifest import ManifestRow
from alserve.folder.planned import PlannedImage
from alserve.folder.run import Options, segment_batch
from alserve.images.decoders import Decoders
from alserve.parallel import ordered_map
from alserve.places.place import Place, Version
from alserve.predictor import Predictor, load

BATCHES, ROWS = "batches", "rows"
"""Columns of what an actor takes and returns."""

_ERROR = "error of the run"
"""Key of an error that is to end the run; no row has it."""


@dataclass(frozen=True)
class Job:
    """What the actors of a run have in common."""

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
        model: Ray's reference to the bytes of the model file.
    """

    def __init__(self, job: Job, model: Any) -> None:  # noqa: ANN401  Ray's types are of an extra
        import ray  # noqa: PLC0415  an extra

        self._job = job
        self._opened = ExitStack()  # ends with the process
        self._error: bytes | None = None
        try:
            with suppress(OSError):  # the token tells
                os.chdir(job.cwd)
            _check_storage(job)
            self._decoders = self._opened.enter_context(Decoders(job.threads, job.decode_timeout))
            self._predictor = _load(job, ray.get(model))
        except Exception as error:  # noqa: BLE001  see the module
            self._error = _dump_error(error)

    def __call__(self, block: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Do the batches of a block, and return their rows, or an error that is to end the run."""
        found: list[bytes] = []
        try:
            batches = (batch for data in block[BATCHES] for batch in load_batches(data))
            if self._error is None:
                for rows in ordered_map(self._do, batches, self._job.threads):
                    found += [json.dumps(row).encode() for row in rows]
        except Exception as error:  # noqa: BLE001  see the module
            self._error = _dump_error(error)
        return {ROWS: np.array(found if self._error is None else [self._error], object)}

    def _do(self, batch: Batch) -> list[ManifestRow]:
        return segment_batch(self._predictor, self._decoders, batch, self._job.options)


def dump_batches(batches: Sequence[Batch]) -> bytes:
    """Return batches as bytes; they come from this program, and go to it."""
    return pickle.dumps(batches, pickle.HIGHEST_PROTOCOL)


def load_batches(data: bytes) -> Sequence[Batch]:
    """Return the batches of `dump_batches`."""
    return pickle.loads(data)  # type: ignore[no-any-return]  # noqa: S301  what this program has made


def load_row(data: bytes) -> ManifestRow:
    """Return a row that an actor has made.

    Raises:
        AlserveError: It is an error that is to end the run.
    """
    row: ManifestRow = json.loads(data)
    if _ERROR in row:
        raise getattr(errors, row[_ERROR])(row["text"])
    return row


def _dump_error(error: Exception) -> bytes:
    if isinstance(error, AlserveError):
        kind, text = type(error).__name__, str(error)
    else:  # a fault of this program, or of a library
        words = (str(error).splitlines() or [""])[0]
        kind, text = RunError.__name__, f"{type(error).__name__} in the run: {words}"
    return json.dumps({_ERROR: kind, "text": f"on machine {socket.gethostname()}: {text}"}).encode()


def _check_storage(job: Job) -> None:
    """Check that this machine sees the same input and output as the one that the run was started on."""
    try:
        same = job.out.read(job.token, len(job.secret)) == job.secret
    except OSError:
        same = False
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
