"""The model that the service started with: all worker processes serve it, whatever happens to its file."""

import hashlib
import os
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from alserve.errors import AlserveError, ModelError
from alserve.modelfile import default_model, read_model
from alserve.places.urls import Location, open_file
from alserve.runtime.engine import Engine

_HASH = "ALSERVE_PINNED_SHA256"
"""Environment variable by which worker processes learn the hash of the file; empty where it could not be read."""

_COPY = "ALSERVE_PINNED_MODEL"
"""The same for a private copy of it."""

_kept: list[TemporaryDirectory[str]] = []  # goes when the process ends


def pin_model(folder: Path) -> None:
    """Keep the model for worker processes that are started later on; called in their parent.

    Where there is no room for a copy, they read the file itself, as long as it is the same.

    Args:
        folder: Where the worker processes will run.
    """
    os.environ[_HASH] = ""
    os.environ.pop(_COPY, None)
    try:
        with chdir(folder):
            model = default_model()
            data, name = read_model(model), open_file(model)[1]
    except AlserveError:
        return  # the worker processes say why
    os.environ[_HASH] = hashlib.sha256(data).hexdigest()
    try:
        _kept.append(private := TemporaryDirectory(prefix="alserve-model-", ignore_cleanup_errors=True))
        copy = Path(private.name) / name
        copy.write_bytes(data)
    except OSError:
        return
    os.environ[_COPY] = str(copy)


def pinned_model() -> Location:
    """Find the model file; `default_model`, where none was pinned.

    Raises:
        ModelError: There is none.
    """
    copy = Path(os.environ.get(_COPY, ""))
    return copy if copy.is_file() else default_model()


def check_pinned(engine: Engine) -> None:
    """Check that a model is the one that the service started with.

    Raises:
        ModelError: It is another.
    """
    if engine.sha256 != os.environ.get(_HASH, engine.sha256):
        raise ModelError(f"{engine.path}: not the model that the service started with; restart the service to serve it")
