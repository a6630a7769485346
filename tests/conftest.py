"""What the tests share: the model that comes with the package, and a service that runs."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from server import serving
from web import SERVE

import training  # noqa: F401  sets how torch's threads wait, before any test loads torch
from alserve import Predictor, load
from alserve.modelfile import default_model


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """The model that comes with the package, on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ALSERVE_MODEL", raising=False)
        return load(default_model(), device="cpu", threads=1)


@pytest.fixture(scope="session")
def service_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service of `client` runs, and writes its log."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="session")
def client(service_folder: Path) -> Iterator[httpx.Client]:
    """A client of a service that was started without any settings."""
    with serving(SERVE, service_folder) as client:
        yield client
