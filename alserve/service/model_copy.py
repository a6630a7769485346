"""The model that the service started with: all worker processes serve it, whatever happens to its file."""

import hashlib
import os
from collections.abc import Callable
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

_NAME = "ALSERVE_PINNED_NAME"
"""The same for what the file is called: the copy's path would tell nobody anything."""

_kept: list[TemporaryDirectory[str]] = []  # goes when the process ends


def pin_model(folder: Path) -> None:
    """Keep the model for worker processes that are started later on; called in their parent.

    Where there is no room for a copy, they read the file itself, as long as it is the same.

    Args:
        folder: Where the worker processes will run.
    """
    os.environ[_HASH] = ""
    for variable in (_COPY, _NAME):
        os.environ.pop(variable, None)
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
    os.environ[_COPY], os.environ[_NAME] = str(copy), str(model)


def load_pinned(load: Callable[[Location], Engine]) -> Engine:
    """Load the model that the service started with; what is wrong with it is said of the file, not of the copy.

    Args:
        load: Loads a model file.

    Raises:
        ModelError: There is none, it is another by now, or it does not work.
    """
    model = _pinned_model()
    try:
        engine = load(model)
    except ModelError as error:
        raise ModelError(str(error).replace(str(model), os.environ.get(_NAME, str(model)))) from None
    _check_pinned(engine)
    return engine


def _pinned_model() -> Location:
    """Find the model file; `default_model`, where none was pinned."""
    copy = Path(os.environ.get(_COPY, ""))
    return copy if copy.is_file() else default_model()


def _check_pinned(engine: Engine) -> None:
    """Refuse a model that is not the one that the service started with."""
    if engine.sha256 != os.environ.get(_HASH, engine.sha256):
        raise ModelError(f"{engine.path}: not the model that the service started with; restart the service to serve it")
