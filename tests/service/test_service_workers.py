"""Several worker processes behind one port: one may die, and the others go on."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from server import living_workers, serving
from web import PNG, SERVE, encoded, figure

from alserve.modelfile import default_model, read_metadata, write_metadata

CALLERS = 4
DYING = 1.0
"""Seconds after a kill in which a request may still reach the dead."""


class Asked(NamedTuple):
    """One request: when it began and ended, and its status, 0 if the line was cut."""

    begun: float
    ended: float
    status: int


def figure_of_any(client: httpx.Client, series: str) -> float:
    """A figure asked for over a line of its own, which any of the workers may take."""
    with httpx.Client(base_url=client.base_url, timeout=60) as fresh:
        return figure(fresh, series)


def wait_for(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(tmp_path: Path) -> None:
    answers: list[Asked] = []
    stopped = False

    def ask_on() -> None:
        while not stopped:
            begun = time.monotonic()
            try:
                status = httpx.post(f"{client.base_url}/segment", content=PNG, timeout=60).status_code
            except httpx.TransportError:
                status = 0
            answers.append(Asked(begun, time.monotonic(), status))

    with serving(SERVE, tmp_path, ALSERVE_WORKERS="2") as client, ThreadPoolExecutor(CALLERS) as pool:
        try:
            wait_for(lambda: len(living_workers(client)) == 2)
            first, second = (old := living_workers(client)).values()
            callers = [pool.submit(ask_on) for _ in range(CALLERS)]
            wait_for(lambda: len(answers) > 2 * CALLERS)
            killed = time.monotonic()
            first.kill()
            wait_for(lambda: any(asked.begun > killed + DYING for asked in answers))
            wait_for(lambda: len(living_workers(client)) == 2)
        finally:
            stopped = True
        for caller in callers:
            caller.result()

        torn = [asked for asked in answers if asked.status != 200]
        assert all(asked.status == 0 and asked.begun < killed + DYING and asked.ended > killed for asked in torn)
        assert len(torn) <= CALLERS
        wait_for(lambda: figure_of_any(client, "alserve_requests_in_progress") == 1)  # what the dead did is not counted
        counts = [figure_of_any(client, 'alserve_requests_total{endpoint="/segment",status="200"}') for _ in range(8)]
        assert len(set(counts)) == 1
        assert counts[0] == pytest.approx(len(answers) - len(torn), abs=CALLERS)

        second.kill()  # now only the new one can answer
        httpx.post(f"{client.base_url}/segment", content=PNG, timeout=60).raise_for_status()
        wait_for(lambda: len(living_workers(client)) == 2)
        assert not living_workers(client).keys() & old.keys()


def test_a_signal_to_stop_is_heeded_while_a_worker_is_started(tmp_path: Path) -> None:
    with serving(SERVE, tmp_path, ALSERVE_WORKERS="2") as client:
        wait_for(lambda: len(living_workers(client)) == 2)
        old = living_workers(client)
        next(iter(old.values())).kill()
        end = time.monotonic() + 60
        while not living_workers(client).keys() - old.keys():  # no pause: `serving` stops the server right after it
            assert time.monotonic() < end


def test_all_workers_serve_the_model_of_the_start_whatever_becomes_of_its_file(tmp_path: Path) -> None:
    data = default_model().read_bytes()
    path = tmp_path / "own.onnx"
    path.write_bytes(data)
    with serving([*SERVE, "--model", "own.onnx"], tmp_path, ALSERVE_WORKERS="2") as client:
        old = living_workers(client)
        path.write_bytes(
            write_metadata(data, read_metadata(data, "the demo").spec.model_copy(update={"threshold": 0.125}))
        )
        for worker in old.values():
            worker.kill()
        wait_for(lambda: len(living_workers(client).keys() - old.keys()) == len(old))

        for _ in range(10):  # over lines of their own: either worker may take them
            assert httpx.get(f"{client.base_url}/readyz", timeout=60).status_code == 200
            assert httpx.get(f"{client.base_url}/model", timeout=60).json()["threshold"] != 0.125


def never_returning(data: bytes) -> bytes:
    """A model that works, but compares some 800,000 boxes each with each for a white image: hours in one node."""
    model = onnx.load_from_string(data)
    spec = read_metadata(data, "the model").spec
    graph = model.graph

    def constant(name: str, value: object, kind: type) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def add(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    for node in graph.node:
        node.output[:] = ["hung_scores" if name == "scores" else name for name in node.output]
    darkest = add("ReduceMin", [add("Cast", ["images"], "hang_images", to=TensorProto.FLOAT)], "hang_least", keepdims=0)
    number = add(
        "Add",
        [
            add("Mul", [darkest, constant("hang_3000", 3000, np.float32)], "hang_product"),
            constant("hang_one", 1, np.float32),
        ],
        "hang_number",
    )
    corner = add("Range", [constant("hang_zero", 0, np.float32), number, "hang_one"], "hang_corner")
    far = add("Add", [corner, constant("hang_half", 0.5, np.float32)], "hang_far")
    axes = constant("hang_axes", [0, 2], np.int64)
    edges = [add("Unsqueeze", [name, axes], f"{name}_edge") for name in (corner, far)]
    boxes = add("Concat", [edges[0], edges[0], edges[1], edges[1]], "hang_boxes", axis=2)
    scores = add("Unsqueeze", [corner, constant("hang_axes_2", [0, 1], np.int64)], "hang_scores")
    most, overlap = constant("hang_most", [10**9], np.int64), constant("hang_overlap", [0.5], np.float32)
    kept = add("NonMaxSuppression", [boxes, scores, most, overlap], "hang_kept")
    least = add("ReduceMin", [add("Cast", [kept], "hang_float", to=TensorProto.FLOAT)], "hang_end", keepdims=0)
    nothing = add("Mul", [least, "hang_zero"], "hang_nothing")
    add("Add", ["hung_scores", nothing], "scores")
    return write_metadata(model.SerializeToString(), spec)


def test_a_stop_ends_in_time_where_the_model_does_not_return(tmp_path: Path) -> None:
    (tmp_path / "hangs.onnx").write_bytes(never_returning(default_model().read_bytes()))
    white = encoded(np.full((64, 64, 3), 255, np.uint8))
    limits = {"ALSERVE_TIMEOUT": "1", "ALSERVE_GRACE": "2"}
    with ThreadPoolExecutor(1) as pool:
        with serving([*SERVE, "--model", "hangs.onnx"], tmp_path, **limits) as client:
            client.post("/predict", content=encoded(np.zeros((64, 64, 3), np.uint8))).raise_for_status()
            decoded = figure(client, 'alserve_stage_seconds_count{stage="decode"}')
            hanging = pool.submit(httpx.post, f"{client.base_url}/predict", content=white, timeout=60)
            wait_for(lambda: figure(client, 'alserve_stage_seconds_count{stage="decode"}') > decoded)
        with pytest.raises(httpx.TransportError):  # `serving` has seen that the service ended, and freed its port
            hanging.result()
