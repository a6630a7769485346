"""Errors over HTTP: one line of JSON, {"error": "..."}, that shows nothing of the inside."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from alserve.errors import (
    AlserveError,
    DeadlineError,
    DeviceError,
    ImageError,
    ImageKindError,
    ImageLimitError,
    ImageSizeError,
    ImageTimeoutError,
    OptionError,
    OverloadError,
    ServiceError,
)

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

MEANING = {
    400: "There is no image, or it is damaged.",
    401: "The service wants a token.",
    403: "The host or the origin of the request is not known; see ALSERVE_HOSTS.",
    408: "The request took too long to arrive.",
    413: "The body is larger than 32 MiB, the image than 67 million pixels, or the batch than the queue.",
    415: "The file is no image, or of a kind that is not read.",
    422: "An option is unknown or out of range.",
    429: "Too many images are waiting, or too much is being uploaded; see Retry-After.",
    503: "The device gave up, or there is no model that works.",
    504: "There was no answer in time; the network was stopped.",
}
"""What each HTTP status of an error means, for the description."""

_RETRY = {429, 503}
"""Errors after which the same request may succeed soon."""

_log = logging.getLogger("alserve.service.errors")


def explain(error: AlserveError) -> tuple[int, str]:
    """Return the status and the text for one of our errors."""
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    if isinstance(error, DeviceError):
        _log.error("%s", error)
        return status, "the device could not do it, most often for want of memory; try again later"
    return status, str(error)


async def _respond(_: Request, error: Exception) -> Response:
    match error:
        case HTTPException():
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        case AlserveError():
            status, text = explain(error)
            return JSONResponse({"error": text}, status, {"Retry-After": "1"} if status in _RETRY else None)
        case ClientDisconnect():
            return JSONResponse({"error": "the request ended early"}, 400)
        case _:
            return JSONResponse({"error": "internal error; the service's log says more"}, 500)


ERROR_HANDLERS = dict.fromkeys((HTTPException, AlserveError, ClientDisconnect, Exception), _respond)
"""For Starlette: what answers each kind of exception."""
