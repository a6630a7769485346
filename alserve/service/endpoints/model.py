"""The model file's metadata, and the device on which the model runs."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from alserve.service.answering import pipeline_of
from alserve.service.endpoints import ENDPOINTS, Endpoint


async def _respond(request: Request) -> Response:
    engine = pipeline_of(request).engine
    names = ("sha256", "device", "device_reason", "precision")
    return JSONResponse({**engine.spec.model_dump(mode="json"), **{name: getattr(engine, name) for name in names}})


ENDPOINTS.add("model")(Endpoint("/model", "GET", _respond, "The model and where it runs.", "application/json"))
