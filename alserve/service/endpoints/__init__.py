"""What the service answers: one endpoint a module, found by name in `ENDPOINTS`.

The routes, the OpenAPI description and the page /docs read this registry, once, when `alserve.service.app` is imported;
the metrics are labelled with the paths.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from alserve.registry import Registry
from alserve.service.options import Options


@dataclass(frozen=True)
class Endpoint:
    """A path of the service, and what its description says of it.

    Args:
        path: Begins with a slash.
        method: The HTTP method.
        respond: Answers a request; an `AlserveError` that it raises is answered as `alserve.service.errors` says.
        summary: One line for the description.
        content: The schema of the JSON that it answers, or the media type, or types, of something else.
        options: The query options that `respond` reads. Default: none.
        body: The form field in which a request brings its image or images, or the schema of the JSON that it brings.
            Default: there is no body.
        example: The JSON of an answer.
    """

    path: str
    method: Literal["GET", "POST"]
    respond: Callable[[Request], Awaitable[Response]]
    summary: str
    content: type[BaseModel] | str | tuple[str, ...]
    options: type[Options] | None = None
    body: Literal["image", "images"] | type[BaseModel] | None = None
    example: Mapping[str, Any] | None = None


ENDPOINTS: Registry[Endpoint] = Registry("endpoint", __name__)
"""All endpoints."""
