"""What the tests share: the model that comes with the package, and real encoded pictures."""

import pytest

import training  # noqa: F401  sets how torch's threads wait, before any test loads torch
from alserve import Predictor, load
from alserve.modelfile import default_model


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """The model that comes with the package, on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ALSERVE_MODEL", raising=False)
        return load(default_model(), device="cpu", threads=1)
