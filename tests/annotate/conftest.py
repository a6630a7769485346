"""What the tests of the drawing page share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, laid_out


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A folder with images to draw, and the page that is open on it."""
    with laid_out(tmp_path) as desk:
        yield desk
