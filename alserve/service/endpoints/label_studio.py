"""The backend that Label Studio asks for predictions: its address is that of the service, and /label-studio."""

import json
import logging
from functools import partial

from anyio import create_task_group, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from alserve.errors import AlserveError, OptionError
from alserve.label_studio.images import TaskImages
from alserve.service.answering import batch_memory_of, bodies_of, pipeline_of
from alserve.service.endpoints import ENDPOINTS, Endpoint
from alserve.service.errors import explain
from alserve.service.label_studio import (
    EXAMPLE,
    Event,
    Health,
    Message,
    Nothing,
    Setup,
    Task,
    TaskPredictions,
    Tasks,
    Version,
    Versions,
    Wanted,
    read_message,
    version_of,
)
from alserve.service.middleware import LABEL_STUDIO

_log = logging.getLogger("alserve.service.label_studio")


async def _health(request: Request) -> Response:
    pipeline_of(request)
    return JSONResponse({"status": "UP", "model_class": "alserve"})


async def _versions(request: Request) -> Response:
    return JSONResponse({"versions": [version_of(pipeline_of(request).engine)]})


async def _setup(request: Request) -> Response:
    engine = pipeline_of(request).engine
    setup = await _receive(request, Setup)
    try:
        Wanted.of(setup.label_config, engine.spec.classes)
    except OptionError as error:
        _log.warning("%s", error)  # Label Studio shows the status alone
        raise
    return JSONResponse({"model_version": version_of(engine)})


async def _webhook(request: Request) -> Response:
    """Do nothing: what was annotated is taken when `alserve train` runs, so that no event can be lost or too late."""
    await _receive(request, Event)
    return JSONResponse({})


async def _receive(request: Request, kind: type[Message]) -> Message:
    with bodies_of(request).receiving(request) as bounded:
        return await to_thread.run_sync(read_message, kind, await bounded.body())


async def _predict(request: Request) -> Response:
    """Answer with a prediction or an error for each task, in order."""
    pipeline, settings = pipeline_of(request), request.app.state.settings
    images = TaskImages(settings.label_studio_files, settings.label_studio_media)
    pipeline.check_capacity()
    with bodies_of(request).receiving(request) as bounded, batch_memory_of(request).batch() as hold:
        asked = await to_thread.run_sync(read_message, Tasks, await bounded.body())
        wanted = Wanted.of(asked.label_config, pipeline.engine.spec.classes)
        encode = wanted.encoder(pipeline.engine)
        results = [""] * len(asked.tasks)
        faults: list[str] = []
        share = pipeline.share()

        async def fill(index: int, task: Task) -> None:
            try:
                read = partial(images.read, task.data.get(wanted.key))
                result = await pipeline.predict(read, encode, share=share)
                hold({"result": result})
            except AlserveError as error:
                status, text = explain(error)
                faults.append(text)
                result = json.dumps({"error": text, "status": status})
            results[index] = result

        with pipeline.reserve(min(len(results), share.value)):  # the others wait as the few bytes of their addresses
            async with create_task_group() as group:
                for index, task in enumerate(asked.tasks):
                    group.start_soon(fill, index, task)
        if faults:
            _log.warning("%d of %d tasks not predicted; the first: %s", len(faults), len(results), faults[0])
        return Response(f'{{"results": [{", ".join(results)}]}}', media_type="application/json")


def _add(name: str, endpoint: Endpoint) -> None:
    ENDPOINTS.add(f"label_studio_{name}")(endpoint)


_add("health", Endpoint(f"{LABEL_STUDIO}health", "GET", _health, "Label Studio: the model works.", Health))
_add("versions", Endpoint(f"{LABEL_STUDIO}versions", "GET", _versions, "Label Studio: the model's version.", Versions))
_add(
    "setup",
    Endpoint(
        f"{LABEL_STUDIO}setup", "POST", _setup, "Label Studio: check a labelling configuration.", Version, body=Setup
    ),
)
_add(
    "predict",
    Endpoint(
        f"{LABEL_STUDIO}predict",
        "POST",
        _predict,
        "Label Studio: predict tasks.",
        TaskPredictions,
        body=Tasks,
        example=EXAMPLE,
    ),
)
_add(
    "webhook",
    Endpoint(f"{LABEL_STUDIO}webhook", "POST", _webhook, "Label Studio: take an event.", Nothing, body=Event),
)
