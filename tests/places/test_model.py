"""The model of a service in an object store."""

from functools import partial
from pathlib import Path

import pytest
from buckets import Bucket
from command import Cli, assert_refused

from alserve import Predictor
from alserve.errors import ModelError
from alserve.places.urls import path_of
from alserve.runtime.engine import Engine
from alserve.service.model_copy import load_pinned, pin_model


@pytest.fixture
def model(bucket: Bucket, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a model, named by the environment."""
    bucket["models/tissue.onnx"] = predictor.engine.path.read_bytes()
    monkeypatch.setenv("ALSERVE_PINNED_SHA256", "")  # what the test sets is undone after it
    monkeypatch.setenv("ALSERVE_PINNED_MODEL", "")
    monkeypatch.setenv("ALSERVE_PINNED_NAME", "")
    url = f"{bucket.url}/models/tissue.onnx"
    monkeypatch.setenv("ALSERVE_MODEL", url)
    return url


def loaded() -> Engine:
    return load_pinned(partial(Engine, device="cpu", threads=1))


def test_the_service_reads_it_once_for_all_its_processes(model: str, bucket: Bucket, predictor: Predictor) -> None:
    pin_model(Path.cwd())
    del bucket["models/tissue.onnx"]

    engine = loaded()

    assert path_of(model) is None
    assert (engine.path.name, engine.sha256) == ("tissue.onnx", predictor.engine.sha256)


def test_one_that_was_not_there_is_one_line_and_not_picked_up_later(
    bucket: Bucket, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    for url, words in (
        (f"{bucket.url}/models", "no such object"),
        ("s3://no-bucket-here/a.onnx", "there is no such bucket"),
        (f"{model}.none", "no such object"),
    ):
        monkeypatch.setenv("ALSERVE_MODEL", url)
        pin_model(Path.cwd())
        with pytest.raises(ModelError) as caught:
            loaded()
        assert str(caught.value) == f"{url}: the model cannot be read: {words}"
    bucket["models/tissue.onnx.none"] = predictor.engine.path.read_bytes()
    with pytest.raises(ModelError, match="not the model that the service started with"):
        loaded()


def test_the_command_serve_refuses_what_is_not_there(model: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(cli("serve", "--model", f"{model}.none"), f"{model}.none: the model cannot be read: no such object")
    for url, words in (("ftp://host/a.onnx", "'ftp://' is no place that is known"), ("s3:///a", "name a bucket")):
        monkeypatch.setenv("ALSERVE_MODEL", url)
        assert_refused(cli("serve"), words)
