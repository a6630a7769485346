"""The page at `/`: static files, served with headers that keep the browser from asking any other host.

The example pictures are drawn tissue, made by `training.data.tissue.draw_tissue` at 360 x 480 pixels from the seeds
8, 3 and 11: the first of regular glands, the others of irregular ones.
"""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "Cache-Control": "no-cache",  # asked again each time, sent again only when changed
    "Referrer-Policy": "same-origin",  # with "no-referrer" some browsers hide the origin of a request too
}
"""Sent with every file of the page."""


STATIC = Path(__file__).parent / "static"


class Page(StaticFiles):
    """The files in `STATIC`, each with `HEADERS`."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return one file of the page."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def index(_: Request) -> Response:
    """`GET /`: the page itself."""
    return FileResponse(STATIC / "index.html", headers=HEADERS)


PAGE_ROUTES: list[BaseRoute] = [Route("/", index, methods=["GET"]), Mount("/page", Page(directory=STATIC))]
"""`/` and what the page loads. They hold nothing secret: the service's token is not needed to read them."""
