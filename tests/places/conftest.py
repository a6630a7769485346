"""An S3 server on this machine, and a faulty way to it."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from buckets import Bucket, FaultyWay, s3_server
from command import Cli
from folders import SIZES, write_picture

from alserve import Predictor
from alserve.places.client import open_bucket

pytest.importorskip("obstore", reason="needs alserve[cloud]")
pytest.importorskip("moto.server", reason="needs moto[server]")

_numbers = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server, which the environment names."""
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server: str) -> Bucket:
    """A bucket of a test's own."""
    return Bucket(server, f"bucket-{next(_numbers)}")


@pytest.fixture
def faulty(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyWay]:
    """What the environment names as the server, and what fails as a test wants."""
    with FaultyWay(server) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.address)
        open_bucket.cache_clear()
        yield way
    open_bucket.cache_clear()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], predictor: Predictor) -> Cli:
    """The command line, with the model that comes with the package wherever a test goes."""
    monkeypatch.setenv("ALSERVE_MODEL", str(predictor.engine.path.absolute()))
    return Cli(monkeypatch, capsys)


@pytest.fixture
def pictures(tmp_path: Path, bucket: Bucket) -> Path:
    """A folder with some pictures; the bucket has the same in in/."""

    for seed, (name, size) in enumerate(SIZES.items()):
        if "\n" not in name:  # no key of obstore
            bucket[f"in/{name}"] = write_picture(tmp_path / "in" / name, *size, seed).read_bytes()
    return tmp_path / "in"
