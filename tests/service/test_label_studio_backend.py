"""The backend for Label Studio, as Label Studio asks it: whole predictions, one line for what cannot be had."""

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from server import serving
from studio import tissue
from web import SERVE, assert_refused, encoded

from alserve.certainty import certainty
from alserve.label_studio.brush import decode_brush
from alserve.predictor import Predictor
from alserve.service.label_studio import EXAMPLE, MOST_TASKS, TaskPredictions

IMAGE_TAG = '<Image name="image" value="$image"/>'
BRUSH = '<BrushLabels name="tag" toName="image"><Label value="foreground"/></BrushLabels>'
POLYGONS = '<PolygonLabels name="outline" toName="image"><Label value="gland"/></PolygonLabels>'
CLASSES = '<Choices name="class" toName="image"><Choice value="regular"/><Choice value="irregular"/></Choices>'
OTHERS = '<Choices name="quality" toName="image"><Choice value="good"/></Choices>'

IMAGE = tissue(0)

EMBEDDED = "data:image/png;base64," + base64.b64encode(encoded(IMAGE)).decode()


def view(*parts: str) -> str:
    return f"<View>{IMAGE_TAG}{''.join(parts)}</View>"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    (folder / "a").mkdir()
    for number in range(3):
        (folder / "a" / f"{number}.png").write_bytes(encoded(tissue(number)))
    (folder / "a" / "text.png").write_bytes(b"hello")
    return folder


@pytest.fixture(scope="module")
def backend(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service that knows where Label Studio's local files are."""
    with serving(SERVE, tmp_path_factory.mktemp("backend"), ALSERVE_LABEL_STUDIO_FILES=str(places)) as client:
        yield client


def ask(client: httpx.Client, config: str, *addresses: object) -> list[dict[str, Any]]:
    """Ask for predictions with all that Label Studio sends."""
    tasks = [
        {"id": number, "data": {"image": address}, "annotations": [], "predictions": [], "project": 1}
        for number, address in enumerate(addresses)
    ]
    params = {"login": None, "password": None, "context": None}
    request = {"tasks": tasks, "project": "1.1700000000", "label_config": config, "params": params}
    answer = client.post("/label-studio/predict", json=request).raise_for_status().json()
    TaskPredictions.model_validate(answer)
    found: list[dict[str, Any]] = answer["results"]
    return found


def test_a_backend_is_set_up(backend: httpx.Client, predictor: Predictor) -> None:
    version = f"alserve-{predictor.engine.sha256[:12]}"
    assert backend.get("/label-studio/health").raise_for_status().json()["status"] == "UP"
    assert backend.get("/label-studio/versions").raise_for_status().json() == {"versions": [version]}
    request = {"project": "1.2", "schema": view(BRUSH), "hostname": "", "access_token": "x", "extra_params": None}
    setup = backend.post("/label-studio/setup", json=request)
    assert setup.raise_for_status().json() == {"model_version": version}


def test_a_task_gets_mask_and_class(backend: httpx.Client, predictor: Predictor) -> None:
    (found,) = ask(backend, view(OTHERS, POLYGONS, CLASSES, BRUSH), EMBEDDED)
    expected = predictor.predict(IMAGE)
    mask, choice = found["result"]
    assert (mask["type"], mask["from_name"]) == ("brushlabels", "tag")
    np.testing.assert_array_equal(decode_brush(bytes(mask["value"]["rle"]), IMAGE.shape[:2]), expected.mask())
    assert mask["value"]["brushlabels"] == ["foreground"]
    assert (choice["from_name"], choice["value"]) == ("class", {"choices": [expected.label]})
    assert found["score"] == pytest.approx(certainty(expected.working_probability), abs=1e-5)
    assert found["model_version"] == f"alserve-{predictor.engine.sha256[:12]}"


def test_a_task_gets_what_is_asked_for(backend: httpx.Client, predictor: Predictor) -> None:
    (outlines,) = ask(backend, view(POLYGONS), EMBEDDED)
    assert {region["type"] for region in outlines["result"]} == {"polygonlabels"}
    assert {tuple(region["value"]["polygonlabels"]) for region in outlines["result"]} == {("gland",)}
    (classes,) = ask(backend, view(CLASSES), EMBEDDED)
    assert [region["type"] for region in classes["result"]] == ["choices"]
    assert classes["score"] == pytest.approx(max(predictor.predict(IMAGE).scores.values()), abs=1e-5)


def test_what_cannot_be_predicted_stops_no_other_task(backend: httpx.Client, places: Path) -> None:
    local = "/data/local-files/?d=a/"
    found = ask(
        backend, view(BRUSH), f"{local}0.png", f"{local}gone.png", f"{local}text.png", "http://x/1.png", f"{local}1.png"
    )
    assert ["result" in each for each in found] == [True, False, False, False, True]
    assert [each.get("status") for each in found[1:4]] == [400, 415, 400]
    assert "'a/gone.png' cannot be read: No such file" in found[1]["error"]
    assert "is not fetched" in found[3]["error"]
    assert str(places) not in json.dumps(found)


def test_more_tasks_than_may_wait_are_answered(backend: httpx.Client) -> None:
    found = ask(backend, view(BRUSH), *(f"/data/local-files/?d=a/{number % 3}.png" for number in range(150)))
    assert all(each["result"] == found[number % 3]["result"] for number, each in enumerate(found))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("<View></View>", "has no BrushLabels or PolygonLabels of an image with the one label foreground"),
        (view(OTHERS), "there are irregular, regular"),
        (view(BRUSH.replace("</B", '<Label value="x"/></B').replace("foreground", "reguler")), "did you mean regular"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View/>', "has a document type"),
        ("<View", "cannot be read"),
    ],
)
def test_a_configuration_that_asks_for_something_else(backend: httpx.Client, config: str, words: str) -> None:
    assert_refused(backend.post("/label-studio/setup", json={"schema": config}), 422, words)
    request = {"tasks": [{"data": {"image": EMBEDDED}}], "label_config": config}
    assert_refused(backend.post("/label-studio/predict", json=request), 422, words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "JSON"),
        (b"{}", "tasks: Field required"),
        (json.dumps({"tasks": [], "label_config": ""}).encode(), "tasks: List should have at least 1 item"),
        (json.dumps({"tasks": [{"data": {}}] * (MOST_TASKS + 1), "label_config": ""}).encode(), "at most 1000 items"),
        (json.dumps({"tasks": [{"data": 3}], "label_config": ""}).encode(), "tasks.0.data"),
        (json.dumps({"tasks": [{"data": {}}], "label_config": 3}).encode(), "label_config"),
    ],
)
def test_what_is_no_request_is_said(backend: httpx.Client, body: bytes, words: str) -> None:
    assert_refused(backend.post("/label-studio/predict", content=body), 422, words)


def test_events_do_nothing_in_any_order(backend: httpx.Client) -> None:
    for action in ("ANNOTATION_UPDATED", "ANNOTATION_CREATED", "ANNOTATION_CREATED", "START_TRAINING"):
        assert (
            backend.post("/label-studio/webhook", json={"action": action, "task": {}}).raise_for_status().json() == {}
        )
    assert_refused(backend.post("/label-studio/webhook", content=b"hello"), 422, "JSON")


def test_health_is_answered_while_tasks_are_predicted(backend: httpx.Client) -> None:
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(ask, backend, view(BRUSH), *([EMBEDDED] * 100)) for _ in range(2)]
        slowest = 0.0
        while not all(one.done() for one in busy):
            start = time.perf_counter()
            backend.get("/label-studio/health").raise_for_status()
            slowest = max(slowest, time.perf_counter() - start)
        assert all(len(one.result()) == 100 for one in busy)
    assert slowest < 1


def test_a_token_is_taken_as_a_password_here_alone(tmp_path: Path) -> None:
    with serving(SERVE, tmp_path, ALSERVE_TOKEN="s3cret:") as client:  # noqa: S106
        assert_refused(client.get("/label-studio/health"), 401, "Bearer TOKEN")
        assert_refused(client.get("/label-studio/health", auth=("x", "s3cret")), 401, "Bearer TOKEN")
        assert client.get("/label-studio/health", auth=("x", "s3cret:")).status_code == 200
        assert client.get("/label-studio/health", headers={"Authorization": "Bearer s3cret:"}).status_code == 200
        assert_refused(client.get("/label-studio/health", headers={"Authorization": "Basic *"}), 401, "Bearer TOKEN")
        assert_refused(client.get("/model", auth=("x", "s3cret:")), 401, "Bearer TOKEN")


def test_the_example_is_one() -> None:
    TaskPredictions.model_validate(EXAMPLE)
