"""What the tests of folder runs share."""

from pathlib import Path

import pytest
from command import Cli
from folders import SIZES, write_picture

from alserve import Predictor


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], predictor: Predictor) -> Cli:
    """The command line, with the model that comes with the package wherever a test goes."""
    monkeypatch.setenv("ALSERVE_MODEL", str(predictor.engine.path.absolute()))
    return Cli(monkeypatch, capsys)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with the pictures of `SIZES`."""
    for seed, (name, size) in enumerate(SIZES.items()):
        write_picture(tmp_path / "in" / name, *size, seed)
    return tmp_path / "in"
