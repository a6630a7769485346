"""The HTTP service: one small Starlette app in a BentoML service, which brings the server, health checks and bentos.

A request is read within limits; its image goes through the `Pipeline`; an error is one line of JSON that shows
nothing of the inside: {"error": "..."}.
"""

import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bentoml
from anyio import create_task_group, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from alserve.drawing import overlay
from alserve.errors import (
    AlserveError,
    DeadlineError,
    DeviceError,
    ImageError,
    ImageKindError,
    ImageLimitError,
    ImageSizeError,
    ImageTimeoutError,
    ModelError,
    OptionError,
    OverloadError,
    ServiceError,
)
from alserve.images.codec import encode_png, to_grey
from alserve.runtime.engine import Engine
from alserve.service.answer_memory import AnswerMemory
from alserve.service.bodies import Bodies
from alserve.service.logs import configure_logging
from alserve.service.metrics import MODEL, metrics_page
from alserve.service.middleware import AccessMiddleware
from alserve.service.model_copy import check_pinned, pin_model, pinned_model
from alserve.service.openapi import CONTENT_POLICY, describe_service, docs_page
from alserve.service.page import PAGE_ROUTES
from alserve.service.pipeline import Case, Pipeline
from alserve.service.protocol import limit_connections
from alserve.service.schemas import CamOptions, MaskOptions, PredictOptions, describe
from alserve.service.settings import Settings
from alserve.service.shutdown import end_within
from alserve.service.upload import read_image, read_images
from alserve.service.warmup import warm_up

LABEL_HEADER = "X-Alserve-Label"
"""Header of a picture that carries the label: UTF-8, percent-encoded."""

STATUS: dict[type[AlserveError], int] = {
    ImageSizeError: 413,
    ImageKindError: 415,
    ImageLimitError: 422,
    ImageTimeoutError: 504,
    ImageError: 400,
    OptionError: 422,
    OverloadError: 429,
    DeviceError: 503,
    ServiceError: 503,
    DeadlineError: 504,
}
"""HTTP status of each of our errors; of several that fit, the first."""

RETRY = {429, 503}
"""Answers after which the same request may succeed soon."""

_log = logging.getLogger("alserve.service.app")


async def predict(request: Request) -> Response:
    """`POST /predict`: what the model says of one image, as JSON."""
    options = PredictOptions.read(request.query_params)
    return await _answer(
        request, lambda case: JSONResponse(describe(case, options)), whole="overlay" in options.include
    )


async def predict_batch(request: Request) -> Response:
    """`POST /predict_batch`: an answer or an error for each of several images, as JSON."""
    options = PredictOptions.read(request.query_params)
    pipeline = _pipeline(request)
    held: AnswerMemory = request.app.state.held
    pipeline.check_room()
    with _bodies(request).receiving(request) as bounded:
        images = await read_images(bounded)
        results: list[dict[str, Any]] = [{} for _ in images]
        turns = pipeline.turns()

        async def fill(index: int, name: str, data: bytes) -> None:
            try:
                answer = await pipeline.answer(
                    data, partial(describe, options=options), whole="overlay" in options.include, turns=turns
                )
                hold(answer)
            except AlserveError as error:
                status, text = _explain(error)
                answer = {"error": text, "status": status}
            results[index] = {"name": name, **answer}

        with pipeline.admitted(len(images)), held.batch() as hold:
            async with create_task_group() as group:
                for index, (name, data) in enumerate(images):
                    group.start_soon(fill, index, name, data)
            return await to_thread.run_sync(JSONResponse, {"results": results})


async def segment(request: Request) -> Response:
    """`POST /segment`: the mask of one image, as PNG, 0 and 255."""
    options = MaskOptions.read(request.query_params)
    return await _answer(request, lambda case: _picture(case, to_grey(case.prediction.mask(options.threshold))))


async def cam(request: Request) -> Response:
    """`POST /cam`: the class activation map of one image, as 8-bit PNG."""
    label = CamOptions.read(request.query_params).label
    classes = _pipeline(request).engine.spec.classes
    if label is not None and label not in classes:
        raise OptionError(f"option 'label' cannot be {label[:40]!r}; the model's classes: {', '.join(classes)}")
    return await _answer(request, lambda case: _picture(case, case.prediction.cam_grey(label)))


async def outline(request: Request) -> Response:
    """`POST /overlay`: one image with the outline of its mask, as PNG."""
    options = MaskOptions.read(request.query_params)
    return await _answer(
        request, lambda case: _picture(case, overlay(case.image, case.prediction.mask(options.threshold))), whole=True
    )


async def model(request: Request) -> Response:
    """`GET /model`: what the model says of itself, and where it runs and why, as JSON."""
    engine = _pipeline(request).engine
    names = ("sha256", "device", "device_reason", "precision")
    return JSONResponse({**engine.spec.model_dump(mode="json"), **{name: getattr(engine, name) for name in names}})


async def metrics(_: Request) -> Response:
    """`GET /metrics`: figures for Prometheus."""
    return metrics_page()


async def openapi(_: Request) -> Response:
    """`GET /openapi.json`: this service described for programs."""
    return JSONResponse(describe_service())


async def docs(_: Request) -> Response:
    """`GET /docs`: this service described for people."""
    return HTMLResponse(docs_page(), headers={"Content-Security-Policy": CONTENT_POLICY})


def _pipeline(request: Request) -> Pipeline:
    pipeline: Pipeline | None = request.app.state.pipeline
    if pipeline is None:
        raise ServiceError("the service has no model that works; its log says why")
    return pipeline


def _bodies(request: Request) -> Bodies:
    bodies: Bodies = request.app.state.bodies
    return bodies


async def _answer(request: Request, build: Callable[[Case], Response], *, whole: bool = False) -> Response:
    """Read the request's image, predict, and build the response; all but the reading happens in a thread."""
    pipeline = _pipeline(request)
    pipeline.check_room()
    with _bodies(request).receiving(request) as bounded:
        data = await read_image(bounded)
        with pipeline.admitted():
            return await pipeline.answer(data, build, whole=whole)


def _picture(case: Case, pixels: Any) -> Response:  # noqa: ANN401
    return Response(encode_png(pixels), media_type="image/png", headers={LABEL_HEADER: quote(case.prediction.label)})


def _explain(error: AlserveError) -> tuple[int, str]:
    """Return the status and the words for one of our errors."""
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    if isinstance(error, DeviceError):
        _log.error("%s", error)
        return status, "the device could not do it, most often for want of memory; try again later"
    return status, str(error)


async def _error(_: Request, error: Exception) -> Response:
    """Answer an error with one line of JSON."""
    match error:
        case HTTPException():
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        case AlserveError():
            status, text = _explain(error)
            return JSONResponse({"error": text}, status, {"Retry-After": "1"} if status in RETRY else None)
        case ClientDisconnect():
            return JSONResponse({"error": "the request ended early"}, 400)
        case _:
            return JSONResponse({"error": "internal error; the service's log says more"}, 500)


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Load the model and try it before the first request; without a model that works the service is never ready."""
    app.state.pipeline = pipeline = None
    try:
        app.state.settings = settings = Settings.from_environment()
        app.state.bodies = Bodies(settings)
        app.state.held = AnswerMemory(settings.body_bytes)
        end_within(settings.grace)
        app.state.pipeline = pipeline = await to_thread.run_sync(_load, settings)
    except (ModelError, DeviceError) as error:
        _log.critical("not ready: %s", error)
    else:
        MODEL.labels(pipeline.engine.sha256, pipeline.engine.device, pipeline.engine.device_reason).set(1)
    gc.collect()
    gc.freeze()  # what is there by now stays: looking through it again and again would hold up requests
    yield
    if pipeline:
        pipeline.close()


def _load(settings: Settings) -> Pipeline:
    """Load and try the model, on the CPU once with all cores and once with one."""
    engine = Engine(pinned_model(), device=settings.device, threads=settings.cores, self_check=settings.self_check)
    check_pinned(engine)
    if engine.unchecked:
        _log.warning("%s", engine.unchecked)
    warm_up(engine)
    if (settings.batch or engine.batch_size) > 1 or settings.cores == 1:
        return Pipeline(engine, settings)
    single = Engine(engine.path, device=engine.device, threads=1, self_check=settings.self_check)
    warm_up(single)
    return Pipeline(engine, settings, single)


app = Starlette(
    routes=[
        Route("/predict", predict, methods=["POST"]),
        Route("/predict_batch", predict_batch, methods=["POST"]),
        Route("/segment", segment, methods=["POST"]),
        Route("/cam", cam, methods=["POST"]),
        Route("/overlay", outline, methods=["POST"]),
        Route("/model", model, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/docs", docs, methods=["GET"]),
        *PAGE_ROUTES,
    ],
    exception_handlers=dict.fromkeys((HTTPException, AlserveError, ClientDisconnect, Exception), _error),
    lifespan=_lifespan,
)


class AlserveService:
    """Class scores, class activation maps and masks of images."""

    def __init__(self) -> None:
        configure_logging()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def pin() -> None:
        """Keep the model, before any worker process is started."""
        pin_model(Path(service.working_dir))

    def __is_ready__(self) -> bool:
        """Say whether the model was tried and works."""
        return app.state.pipeline is not None


class ProtectedService(bentoml.Service):  # type: ignore[misc]
    """BentoML's service behind our gate, which lets BentoML answer the health pages only."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:  # noqa: FBT001, FBT002
        """Return the application that a worker process serves, and limit the connections that it is served over."""
        limit_connections(Settings.from_environment())
        return AccessMiddleware(super().to_asgi(is_main), site=app)


service = bentoml.service(
    name="alserve",
    service_class=ProtectedService,
    workers=Settings.from_environment().workers,
    http={"host": "127.0.0.1"},  # BentoML's own choice is the whole network; the container sets BENTOML_HOST
    traffic={"timeout": 5},  # of the health pages; ours have limits of their own, which stop the network too
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)(bentoml.asgi_app(app)(AlserveService))
"""What BentoML serves; it starts the worker processes, and starts one anew that died."""
