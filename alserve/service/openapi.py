"""The service described: OpenAPI 3.1 for programs, one plain page for people.

BentoML's own page would know only endpoints of its own making.
"""

import json
from collections.abc import Iterable
from functools import cache
from html import escape
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from alserve import __version__
from alserve.service.endpoints import ENDPOINTS, Endpoint
from alserve.service.errors import MEANING
from alserve.service.options import Options
from alserve.service.responses import ErrorResponse
from alserve.service.settings import MAX_IMAGES
from alserve.service.upload import FIELDS

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content-Security-Policy of the page /docs, which has a style of its own and no script."""

_REFERENCE = "#/components/schemas/{model}"


def _in_order() -> list[Endpoint]:
    """Return the endpoints: first those that take images, of these first those that answer JSON."""
    return sorted(
        ENDPOINTS.values(), key=lambda endpoint: (endpoint.body is None, isinstance(endpoint.content, str | tuple))
    )


@cache
def describe_service() -> dict[str, Any]:
    """Return the OpenAPI description, ready for JSON."""
    endpoints = _in_order()
    answers: list[type[BaseModel]] = [it.content for it in endpoints if not isinstance(it.content, str | tuple)]
    answers.append(ErrorResponse)
    bodies = [endpoint.body for endpoint in endpoints if isinstance(endpoint.body, type)]
    _, schemas = models_json_schema(
        [*((model, "serialization") for model in answers), *((model, "validation") for model in bodies)],
        ref_template=_REFERENCE,
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "alserve",
            "version": __version__,
            "description": "Class scores, class activation maps and masks of images (JPEG, PNG, TIFF, BMP, WebP, GIF).",
        },
        "paths": {
            **{endpoint.path: {endpoint.method.lower(): _operation(endpoint)} for endpoint in endpoints},
            "/livez": {"get": _health("The process lives.")},
            "/readyz": {"get": _health("The model was tried and works.")},
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    errors = MEANING.keys() if endpoint.body else {401, 403, 503} | ({422} if endpoint.options else set())
    return {
        "summary": endpoint.summary,
        **({"parameters": _parameters(endpoint.options)} if endpoint.options else {}),
        **({"requestBody": _request_body(endpoint.body)} if endpoint.body else {}),
        "responses": _responses(endpoint.summary, _content(endpoint), errors),
    }


def _health(summary: str) -> dict[str, Any]:
    """Describe a page of BentoML's."""
    return {"summary": summary, "responses": _responses(summary, {"text/plain": {}}, (401, 403, 503))}


def _responses(summary: str, content: dict[str, Any], errors: Iterable[int]) -> dict[str, Any]:
    error = _json(ErrorResponse)
    return {
        "200": {"description": summary, "content": content},
        **{
            str(status): {
                "description": MEANING[status],
                "content": {"application/json": {**error, "example": {"error": MEANING[status]}}},
            }
            for status in sorted(errors)
        },
    }


def _content(endpoint: Endpoint) -> dict[str, Any]:
    """Describe an answer: JSON by its schema, a file by its media type."""
    example = {} if endpoint.example is None else {"example": endpoint.example}
    match endpoint.content:
        case str() as kind:
            return {kind: _file(kind) | example}
        case tuple() as kinds:
            return {kind: _file(kind) | example for kind in kinds}
        case model:
            return {"application/json": _json(model) | example}


def _file(kind: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "contentMediaType": kind}} if kind.startswith("image/") else {}


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}


def _request_body(field: str | type[BaseModel]) -> dict[str, Any]:
    """Describe a body: JSON; or one with its image, or images, in a form; one image may also be the whole body."""
    if not isinstance(field, str):
        return {"required": True, "content": {"application/json": _json(field)}}
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    several = field == FIELDS
    files = {"type": "array", "items": file, "minItems": 1, "maxItems": MAX_IMAGES} if several else file
    form = {"schema": {"type": "object", "required": [field], "properties": {field: files}}}
    content = {"multipart/form-data": form, **({} if several else {"application/octet-stream": {"schema": file}})}
    return {"required": True, "content": content}


def _parameters(options: type[Options]) -> list[dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = options.model_json_schema().get("properties", {})
    return [
        {
            "name": name,
            "in": "query",
            "description": schema.pop("description"),
            "schema": schema,
            **({"style": "form", "explode": False} if schema.get("type") == "array" else {}),
        }
        for name, schema in properties.items()
    ]


@cache
def docs_page() -> str:
    """Return the page /docs, in HTML."""
    description = describe_service()
    sections = [
        _section(method, path, operation)
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    ]
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>alserve</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
h2 {{ margin-top: 2.5rem }}
pre {{ overflow-x: auto; padding: .5rem; background: #8882 }}
td {{ padding-right: 1rem; vertical-align: top }}
</style>
<h1>alserve {escape(__version__)}</h1>
<p>{escape(description["info"]["description"])} For programs: <a href="openapi.json">openapi.json</a>.</p>
{"".join(sections)}
<h2>Errors</h2>
<p>An error is JSON, one line: <code>{{"error": "what is wrong"}}</code></p>
{_table((str(status), words) for status, words in MEANING.items())}
</html>
"""


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    answer = operation["responses"]["200"]["content"].get("application/json", {}).get("example")
    example = f"<pre>{escape(json.dumps(answer, indent=2))}</pre>" if answer else ""
    return f"""<h2><code>{method.upper()} {escape(path)}</code></h2>
<p>{escape(operation["summary"])}</p>
{_table((option["name"], _explained(option)) for option in operation.get("parameters", []))}
<pre>{escape(curl(path, operation))}</pre>
{example}
"""


def _explained(option: dict[str, Any]) -> str:
    schema = option["schema"]
    allowed = schema.get("items", schema).get("enum")
    return f"{option['description']} Allowed: {', '.join(allowed)}." if allowed else str(option["description"])


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return (
        f"<table>{''.join(f'<tr><td><code>{escape(name)}</code><td>{escape(words)}' for name, words in rows)}</table>"
    )


def curl(path: str, operation: dict[str, Any]) -> str:
    """Return a command that asks for a page.

    Args:
        path: The page.
        operation: Its OpenAPI operation.
    """
    content = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data", {})
    fields = "".join(f" -F {name}=@photo.jpg" for name in content.get("schema", {}).get("properties", {}))
    picture = " --output answer.png" if "image/png" in operation["responses"]["200"]["content"] else ""
    sent = " --json @request.json" if "application/json" in operation.get("requestBody", {}).get("content", {}) else ""
    return f"curl{fields}{sent} http://127.0.0.1:3000{path}{picture}"


async def _openapi(_: Request) -> Response:
    return JSONResponse(describe_service())


async def _docs(_: Request) -> Response:
    return HTMLResponse(docs_page(), headers={"Content-Security-Policy": CONTENT_POLICY})


DESCRIPTION_ROUTES = [Route("/openapi.json", _openapi, methods=["GET"]), Route("/docs", _docs, methods=["GET"])]
"""The description of the service, for programs and for people."""
