"""Two processes on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from training.distributed.local import LocalGroup


@pytest.fixture(scope="package")
def pair() -> Iterator[LocalGroup]:
    """A group of two, which do what is in tests/jobs.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        patch.setenv("OMP_NUM_THREADS", "1")
        group = LocalGroup(0, 2, "cpu")
        yield group
        group.close(0)
