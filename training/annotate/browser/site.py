"""What the page asks its server: the images, their masks, and what the person says of them."""

import gzip
import hmac
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from alserve.arrays import Mask
from alserve.errors import AlserveError, ImageError
from alserve.paths import printable
from alserve.service.hosts import host_name
from alserve.service.page import HEADERS, Page
from alserve.service.page import STATIC as HOUSE
from training.annotate.browser.drawing import ChangedError, DoubtError, Drawing
from training.annotate.browser.pictures import Pictures
from training.annotate.browser.session import Session

OWN = Path(__file__).parent / "static"

HOSTS = frozenset({"127.0.0.1", "localhost"})
"""What the page may be asked for by: a name of another site that leads here is refused (DNS rebinding)."""

REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
"""For the report, which holds its styles and pictures itself."""

SPARE_BYTES = 1024
"""What a deflated mask may be longer than its bits, beside a thousandth of them."""


class Guard:
    """ASGI application before another: answers this machine's own pages only, and nothing but the page without token.

    Args:
        app: The other.
        token: The secret that is in the address of the page.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it before its body is read."""
        if refusal := self._refusal(scope):
            response = JSONResponse({"error": refusal}, 403, {"Connection": "close"})
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if host_name(host.lower()) not in HOSTS or origin not in {None, f"http://{host}"}:
            return "this page is answered for 127.0.0.1 only"
        if scope["path"] == "/" or scope["path"].startswith("/page/"):
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
        if scope["path"] == "/report":  # a frame sends no header
            given = Request(scope).query_params.get("token", "").encode()
        if not hmac.compare_digest(given, self._token):
            return "the address lacks its token; open the page by the whole address that the command prints"
        return None


def build_site(session: Session, token: str) -> Starlette:
    """Return the application.

    Args:
        session: What is shown and changed.
        token: The secret that is in the address of the page.
    """
    return Starlette(
        routes=_Answers(session).routes(),
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={HTTPException: _refuse, AlserveError: _refuse, OSError: _refuse},
    )


class _Answers:
    """The endpoints."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pictures = Pictures()

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", _index, methods=["GET"]),
            Route("/page/house.css", lambda _: FileResponse(HOUSE / "page.css", headers=HEADERS), methods=["GET"]),
            Route("/page/icon.svg", lambda _: FileResponse(HOUSE / "icon.svg", headers=HEADERS), methods=["GET"]),
            Mount("/page", Page(directory=OWN)),
            Route("/status", self.status, methods=["GET"]),
            Route("/report", self.report, methods=["GET"]),
            Route("/finish", self.finish, methods=["POST"]),
            Route("/images/{key}/picture", self.picture, methods=["GET"]),
            Route("/images/{key}/thumbnail", self.thumbnail, methods=["GET"]),
            Route("/images/{key}/tiles/{level:int}/{column:int}/{row:int}", self.tile, methods=["GET"]),
            Route("/images/{key}/mask", self.mask, methods=["GET"]),
            Route("/images/{key}/mask", self.save, methods=["PUT"]),
            Route("/images/{key}/{action}", self.act, methods=["POST"]),
        ]

    def status(self, _: Request) -> Response:
        return _json(self._session.describe())

    def finish(self, _: Request) -> Response:
        self._session.finish()
        self._pictures.forget()
        return _json(self._session.describe())

    def report(self, _: Request) -> Response:
        path = self._session.report
        if path is None or not path.is_file():
            raise HTTPException(404, "there is no report yet")
        self._session.report_shown.set()
        return Response(
            path.read_bytes(),
            media_type="text/html; charset=utf-8",
            headers={**HEADERS, "Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-store"},
        )

    def picture(self, request: Request) -> Response:
        return _jpeg(self._pictures.whole(self._find(request)))

    def thumbnail(self, request: Request) -> Response:
        return _jpeg(self._pictures.thumbnail(self._find(request)))

    def tile(self, request: Request) -> Response:
        place = (request.path_params[name] for name in ("level", "column", "row"))
        return _jpeg(self._pictures.tile(self._find(request), *place))

    def mask(self, request: Request) -> Response:
        """Return what drawing starts from: width and height, and the bits of the mask, see `_pack`."""
        drawing = self._find(request)
        with self._session.lock:
            kind, mask = drawing.start()
            version = drawing.version
        height, width = drawing.shape
        return Response(
            gzip.compress(b"" if mask is None else _pack(mask), 1),
            media_type="application/octet-stream",
            headers={
                "Content-Encoding": "gzip",
                "Cache-Control": "no-store",
                "X-Start": kind,
                "X-Size": f"{width} {height}",
                "X-Version": version,
            },
        )

    async def save(self, request: Request) -> Response:
        """Save what was drawn so far; the body is the deflated bits of the mask."""
        drawing = self._find(request)
        height, width = drawing.shape
        size = height * (-(-width // 8))
        body = await _read(request, size + size // 1000 + SPARE_BYTES)
        return await run_in_threadpool(self._save, drawing, body, request.headers.get("if-match", ""))

    def _save(self, drawing: Drawing, body: bytes, version: str) -> Response:
        mask = _unpack(body, drawing.shape)
        with self._session.lock:
            drawing.save(mask, version)
            return _json({"version": drawing.version})

    def act(self, request: Request) -> Response:
        """Do what the person says of an image: done, sure (done, and the mask is right), empty, skip or reopen."""
        drawing = self._find(request)
        actions = {
            "done": lambda: drawing.finish(sure=False),
            "sure": lambda: drawing.finish(sure=True),
            "empty": drawing.say_empty,
            "skip": drawing.skip,
            "reopen": drawing.reopen,
        }
        if (action := actions.get(request.path_params["action"])) is None:
            raise HTTPException(404, "there is no such page")
        with self._session.lock:
            action()
        return _json(self._session.describe())

    def _find(self, request: Request) -> Drawing:
        """Return the image of a key; a name never becomes a path here."""
        drawing = self._session.drawings.get(request.path_params["key"])
        if drawing is None:
            raise HTTPException(404, "this image is not asked for now")
        return drawing


def _index(_: Request) -> Response:
    return FileResponse(OWN / "index.html", headers=HEADERS)


def _json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(content, status, {"Cache-Control": "no-store", **(headers or {})})


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


async def _refuse(_: Request, error: Exception) -> Response:
    """Answer with one line that says what is wrong."""
    if isinstance(error, HTTPException):
        return _json({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, OSError):  # the disk is full, or the folder may not be written
        return _json({"error": printable(f"{error.filename}: {error.strerror}")}, 507)
    statuses = {DoubtError: 409, ChangedError: 412, ImageError: 422}
    status = next((status for kind, status in statuses.items() if isinstance(error, kind)), 400)
    doubt = {"doubt": error.kind} if isinstance(error, DoubtError) else {}
    return _json({"error": printable(str(error)), **doubt}, status)


async def _read(request: Request, most: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise HTTPException(
                413,
                f"the body has more than {most} bytes, the most that this image's mask takes",
                {"Connection": "close"},  # its rest is not read
            )
    return bytes(body)


def _pack(mask: Mask) -> bytes:
    """Return the bits of a mask: rows filled up to whole bytes, the leftmost pixel in the highest bit."""
    return np.packbits(mask, axis=1).tobytes()


def _unpack(body: bytes, shape: tuple[int, int]) -> Mask:
    """Return the mask, bool [height, width], of deflated bits, see `_pack`.

    Raises:
        HTTPException: 400, they are not those of a mask of this shape.
    """
    height, width = shape
    size = height * (-(-width // 8))
    inflate = zlib.decompressobj()
    try:
        bits = inflate.decompress(body, size + 1)  # no more, whatever the body would become
    except zlib.error:
        raise HTTPException(400, "the body is no deflated mask") from None
    if len(bits) != size or not inflate.eof or inflate.unused_data:
        raise HTTPException(400, f"the body is no mask of {width} x {height} pixels")
    rows = np.frombuffer(bits, np.uint8).reshape(height, -1)
    return np.unpackbits(rows, axis=1, count=width).astype(np.bool_)
