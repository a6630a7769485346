"""The HTTP service: one small Starlette app in a BentoML service, which brings the server, health checks and bentos.

A request is read within limits; its image goes through the `Pipeline`.
"""

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import bentoml
from anyio import to_thread
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from alserve.errors import DataError, DeviceError, ModelError, RunError
from alserve.service.batch_memory import BatchMemory
from alserve.service.bodies import Bodies
from alserve.service.endpoints import ENDPOINTS
from alserve.service.errors import ERROR_HANDLERS
from alserve.service.loading import load_engine
from alserve.service.logs import configure_logging
from alserve.service.metrics import MODEL
from alserve.service.middleware import AccessMiddleware
from alserve.service.model_copy import load_pinned, pin_model
from alserve.service.openapi import DESCRIPTION_ROUTES
from alserve.service.page import PAGE_ROUTES
from alserve.service.pipeline import Pipeline
from alserve.service.protocol import limit_connections
from alserve.service.settings import ServiceSettings
from alserve.service.shutdown import end_within, stop_for_certain

_log = logging.getLogger("alserve.service.app")


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Load the model and try it before the first request; without a model that works the service is never ready."""
    app.state.pipeline = pipeline = None
    try:
        app.state.settings = settings = ServiceSettings.from_environment()
        app.state.bodies = Bodies(settings)
        app.state.batch_memory = BatchMemory(settings.body_bytes)
        end_within(settings.grace)
        app.state.pipeline = pipeline = await to_thread.run_sync(_load, settings)
    except (ModelError, DataError, RunError, DeviceError) as error:
        _log.critical("not ready: %s", error)
    else:
        MODEL.labels(pipeline.engine.sha256, pipeline.engine.device, pipeline.engine.device_reason).set(1)
    gc.collect()
    gc.freeze()  # what is there by now stays: looking through it again and again would hold up requests
    yield
    if pipeline:
        pipeline.close()


def _load(settings: ServiceSettings) -> Pipeline:
    """Load and try the model, on the CPU once with all cores and once with one."""
    check = settings.self_check
    engine = load_pinned(partial(load_engine, device=settings.device, threads=settings.cores, self_check=check))
    if engine.unchecked:
        _log.warning("%s", engine.unchecked)
    if (settings.batch or engine.batch_size) > 1 or settings.cores == 1:
        return Pipeline(engine, settings)
    return Pipeline(engine, settings, load_engine(engine.location, device=engine.device, threads=1, self_check=check))


app = Starlette(
    routes=[
        *(Route(endpoint.path, endpoint.respond, methods=[endpoint.method]) for endpoint in ENDPOINTS.values()),
        *DESCRIPTION_ROUTES,
        *PAGE_ROUTES,
    ],
    exception_handlers=ERROR_HANDLERS,
    lifespan=_lifespan,
)


class AlserveService:
    """Class scores, class activation maps and masks of images."""

    def __init__(self) -> None:
        configure_logging()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def prepare() -> None:
        """Keep the model and heed every signal to stop, before any worker process is started."""
        stop_for_certain()
        pin_model(Path(service.working_dir))

    def __is_ready__(self) -> bool:
        """Return whether the model was tried and works."""
        return app.state.pipeline is not None


class ProtectedService(bentoml.Service):  # type: ignore[misc]
    """BentoML's service behind `AccessMiddleware`, which has BentoML answer the health pages only."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:  # noqa: FBT001, FBT002
        """Return the application that a worker process serves, and limit the connections that it is served over."""
        limit_connections(ServiceSettings.from_environment())
        return AccessMiddleware(super().to_asgi(is_main), site=app)


service = bentoml.service(
    name="alserve",
    service_class=ProtectedService,
    workers=ServiceSettings.from_environment().workers,
    http={"host": "127.0.0.1"},  # BentoML's own choice is the whole network; the container sets BENTOML_HOST
    traffic={"timeout": 5},  # of the health pages; ours have limits of their own, which stop the network too
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)(bentoml.asgi_app(app)(AlserveService))
"""What BentoML serves; it starts the worker processes, and starts one anew that died."""
