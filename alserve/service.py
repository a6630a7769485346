"""The HTTP service: one small Starlette app in a BentoML service, which adds health checks and metrics.

A request is read within a limit; its image is decoded, predicted and encoded in one of as many threads as
there are cores; an error is one line of JSON: {"error": "..."}.
"""

import base64
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # this software does not phone home

import bentoml
import numpy as np
import numpy.typing as npt
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive

from alserve import page
from alserve.device import available_cores
from alserve.engine import Engine
from alserve.errors import ImageError
from alserve.imageio import decode, encode_png, to_grey
from alserve.modelfile import default_model
from alserve.predictor import Prediction, Predictor
from alserve.render import overlay

FIELD = "image"
"""Name of the multipart field that holds the image."""

LABEL_HEADER = "X-Alserve-Label"
"""Header of a mask that carries the label: UTF-8, percent-encoded."""

MAX_BODY_BYTES = 32 * 2**20
"""A larger request is answered 413, whether it says its length or comes in chunks."""


def describe_prediction(
    prediction: Prediction, pixels: npt.NDArray[np.uint8], include: Collection[str], threshold: float | None
) -> dict[str, Any]:
    """Build the answer of `POST /predict`.

    Args:
        prediction: What the model says of one image.
        pixels: The image itself, uint8 [height, width, 3].
        include: Of "mask", "cam", "overlay", "probability".
        threshold: Of the mask, 0 to 1; the model's own if left out.

    Returns:
        `label`; `scores`, 0 to 1, by class; `mask`: `png` (base64; 8-bit, 0 and 255, the image's own size),
        `threshold`, `foreground` (fraction, 0 to 1), `width` and `height` in pixels; `cam`: `png` (base64;
        8-bit, 0 to 255, the image's own size) and its `class`.
    """
    mask = prediction.mask(threshold)
    level = prediction.spec.threshold if threshold is None else threshold
    size = {"width": prediction.width, "height": prediction.height}
    facts = {"threshold": level, "foreground": float(mask.mean())}
    maps = {
        "mask": lambda: {"png": _base64(to_grey(mask)), **facts, **size},
        "cam": lambda: {"png": _base64(to_grey(prediction.cam())), "class": prediction.label},
        "overlay": lambda: {"png": _base64(overlay(pixels, mask))},
        "probability": lambda: {"png": _base64(to_grey(prediction.probability()))},
    }
    return {
        "label": prediction.label,
        "scores": prediction.scores,
        **size,
        **facts,
        "warning": None,
        **{name: build() for name, build in maps.items() if name in include},
    }


def _base64(pixels: npt.NDArray[np.uint8]) -> str:
    return base64.b64encode(encode_png(pixels)).decode()


def describe_model(engine: Engine) -> dict[str, Any]:
    """Build the answer of `GET /model`: the fields of the `ModelSpec`, and `sha256` and `device`."""
    return {**engine.spec.model_dump(mode="json"), "sha256": engine.sha256, "device": engine.device}


async def predict(request: Request) -> Response:
    """`POST /predict`: label, scores, mask and CAM of one image, as JSON."""
    data = await read_image_field(request)
    predictor: Predictor = request.app.state.predictor
    include = request.query_params.get("include", "mask,cam").split(",")
    above = request.query_params.get("threshold")

    def work() -> Response:
        pixels = decode(data)
        threshold = None if above is None else float(above)
        return JSONResponse(describe_prediction(predictor.predict(pixels), pixels, include, threshold))

    return await to_thread.run_sync(work, limiter=request.app.state.limiter)


async def segment(request: Request) -> Response:
    """`POST /segment`: the mask of one image, as PNG, with the label in a header."""
    return await _answer(
        request,
        lambda prediction: Response(
            encode_png(to_grey(prediction.mask())),
            media_type="image/png",
            headers={LABEL_HEADER: quote(prediction.label)},
        ),
    )


async def model(request: Request) -> Response:
    """`GET /model`: what the model says of itself, and where it runs, as JSON."""
    predictor: Predictor = request.app.state.predictor
    return JSONResponse(describe_model(predictor.engine))


async def _answer(request: Request, respond: Callable[[Prediction], Response]) -> Response:
    """Read the request's image, predict and build the response; all but the reading happens in a thread."""
    data = await read_image_field(request)
    predictor: Predictor = request.app.state.predictor
    return await to_thread.run_sync(
        lambda: respond(predictor.predict([decode(data)])[0]), limiter=request.app.state.limiter
    )


async def read_image_field(request: Request) -> bytes:
    """Read the bytes of the image: the multipart field `FIELD`, else the whole body. Nothing is ever fetched.

    Raises:
        HTTPException: 400 where there is no image, 413 where there is too much.
    """
    token = os.environ.get("ALSERVE_TOKEN")
    if token and request.headers.get("authorization") != f"Bearer {token}":
        raise HTTPException(401, "a token is needed", {"WWW-Authenticate": "Bearer"})
    bounded = Request(request.scope, _bounded(request))
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        if data := await bounded.body():
            return data
        raise HTTPException(400, f"no image: send it as the body, or as the field '{FIELD}' of multipart/form-data")
    async with bounded.form(max_files=1, max_fields=16) as form:
        field = form.get(FIELD)
        if isinstance(field, UploadFile):
            return await field.read()
    if field is None:
        raise HTTPException(400, f"no field '{FIELD}' in the form; with curl: -F {FIELD}=@photo.jpg")
    raise HTTPException(
        400,
        f"the field '{FIELD}' holds text, not a file; URLs are not fetched; with curl: -F {FIELD}=@photo.jpg",
    )


def _bounded(request: Request) -> Receive:
    """Give the request's `receive` with a limit on the body, as announced and as it comes."""
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else 0
    received = 0

    async def receive() -> Message:
        nonlocal received
        if max(announced, received) <= MAX_BODY_BYTES:
            message = await request.receive()
            received += len(message.get("body", b""))
        if max(announced, received) > MAX_BODY_BYTES:
            raise HTTPException(
                413,
                f"the request is larger than {MAX_BODY_BYTES // 2**20} MiB; send a smaller image",
                {"Connection": "close"},
            )
        return message

    return receive


async def _error(_: Request, error: Exception) -> Response:
    """Answer an error with one line of JSON that shows nothing of the inside."""
    match error:
        case HTTPException():
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        case ImageError():
            return JSONResponse({"error": str(error)}, 400)
        case ClientDisconnect():
            return JSONResponse({"error": "the request ended early"}, 400)
        case _:
            return JSONResponse({"error": "internal error; the service's log says more"}, 500)


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Load the model before the first request; the network and the threads around it share the cores."""
    app.state.predictor = Predictor(Engine(default_model()))
    app.state.limiter = CapacityLimiter(available_cores())
    yield


app = Starlette(
    routes=[
        Route("/predict", predict, methods=["POST"]),
        Route("/segment", segment, methods=["POST"]),
        Route("/model", model, methods=["GET"]),
        *page.ROUTES,
    ],
    exception_handlers=dict.fromkeys((HTTPException, ImageError, ClientDisconnect, Exception), _error),
    lifespan=_lifespan,
)


class AlserveService:
    """Class scores, class activation maps and masks of images."""


service = bentoml.service(name="alserve", workers=1)(bentoml.asgi_app(app)(AlserveService))
"""What BentoML serves, in one worker process: its threads share one ONNX Runtime session."""
