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

from alserve import __version__
from alserve.service.schemas import Answer, Answers, CamOptions, MaskOptions, Options, PredictOptions, Refusal
from alserve.service.settings import MAX_IMAGES
from alserve.service.upload import FIELD, FIELDS

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content-Security-Policy of the page for people, which has a style of its own and no script."""

_PNG = {"type": "string", "contentMediaType": "image/png"}
_REFERENCE = "#/components/schemas/{model}"

_EXAMPLE: dict[str, Any] = {
    "label": "malignant",
    "scores": {"benign": 0.08, "malignant": 0.92},
    "width": 775,
    "height": 522,
    "threshold": 0.5,
    "foreground": 0.31,
    "warning": None,
    "mask": {"png": "iVBORw0KGgo="},
    "cam": {"png": "iVBORw0KGgo=", "class": "malignant"},
}
_REFUSALS = {
    400: "There is no image, or it is damaged.",
    401: "The service wants a token.",
    403: "The host or the origin of the request is not known; see ALSERVE_HOSTS.",
    408: "The request took too long to arrive.",
    413: "The body is larger than 32 MiB, the image than 50 million pixels, or the batch than the queue.",
    415: "The file is no image, or of a kind that is not read.",
    422: "An option is unknown or out of range.",
    429: "Too many images are waiting, or too much is being uploaded; see Retry-After.",
    503: "The device gave up, or there is no model that works.",
    504: "There was no answer in time; the network was stopped.",
}


@cache
def describe_service() -> dict[str, Any]:
    """Return the OpenAPI description, ready for JSON."""
    _, schemas = models_json_schema(
        [(model, "serialization") for model in (Answer, Answers, Refusal)], ref_template=_REFERENCE
    )
    batch = {"results": [{"name": "a.jpg", **_EXAMPLE}, {"name": "b.txt", "error": "not an image", "status": 415}]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "alserve",
            "version": __version__,
            "description": "Class scores, class activation maps and masks of images (JPEG, PNG, TIFF, BMP, WebP, GIF).",
        },
        "paths": {
            "/predict": {"post": _post("Predict one image.", PredictOptions, _json("Answer", _EXAMPLE))},
            "/predict_batch": {
                "post": _post("Predict several images.", PredictOptions, _json("Answers", batch), field=FIELDS)
            },
            "/segment": {"post": _post("The mask, 0 and 255.", MaskOptions, {"image/png": {"schema": _PNG}})},
            "/cam": {"post": _post("A class activation map, 8-bit.", CamOptions, {"image/png": {"schema": _PNG}})},
            "/overlay": {"post": _post("The mask's outline drawn.", MaskOptions, {"image/png": {"schema": _PNG}})},
            "/model": {"get": _get("The model and where it runs.", "application/json")},
            "/metrics": {"get": _get("Figures for Prometheus.", "text/plain")},
            "/livez": {"get": _get("The process lives.", "text/plain")},
            "/readyz": {"get": _get("The model was tried and works.", "text/plain")},
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _post(summary: str, options: type[Options], content: dict[str, Any], field: str = FIELD) -> dict[str, Any]:
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    files = {"type": "array", "items": file, "minItems": 1, "maxItems": MAX_IMAGES}
    several = field == FIELDS
    form = {"type": "object", "required": [field], "properties": {field: files if several else file}}
    body = {"multipart/form-data": {"schema": form}}
    return {
        "summary": summary,
        "parameters": _parameters(options),
        "requestBody": {
            "required": True,
            "content": body if several else {**body, "application/octet-stream": {"schema": file}},
        },
        "responses": {
            "200": {"description": summary, "content": content},
            **{str(status): _refusal(words) for status, words in _REFUSALS.items()},
        },
    }


def _get(summary: str, kind: str) -> dict[str, Any]:
    refusals = {str(status): _refusal(_REFUSALS[status]) for status in (401, 403, 503)}
    return {"summary": summary, "responses": {"200": {"description": summary, "content": {kind: {}}}, **refusals}}


def _json(model: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model)}, "example": example}}


def _refusal(words: str) -> dict[str, Any]:
    return {"description": words, "content": _json("Refusal", {"error": words})}


def _parameters(options: type[BaseModel]) -> list[dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = options.model_json_schema()["properties"]
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
    """Return the page for people, in HTML."""
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
<h2>Refusals</h2>
<p>An error is JSON, one line: <code>{{"error": "what is wrong"}}</code></p>
{_table((str(status), words) for status, words in _REFUSALS.items())}
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
    return f"curl{fields} http://127.0.0.1:3000{path}{picture}"
