"""What comes before all pages of the service, BentoML's included: access control, request ids, log and metrics."""

import base64
import hmac
import logging
import re
import uuid
from contextlib import suppress
from time import perf_counter

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alserve.service.hosts import host_error
from alserve.service.metrics import IN_PROGRESS, REQUEST_SECONDS, REQUESTS

HEALTH = frozenset({"/livez", "/readyz"})
"""Pages that need no token and leave no line in the log; BentoML answers them."""

PUBLIC = HEALTH | {"/", "/page"}
"""Pages that need no token: the page at `/` asks its user for it."""

LABEL_STUDIO = "/label-studio/"
"""How the pages begin that Label Studio asks; it sends a name and a password, of which the password is the token.

On other pages that is no way in: a browser would send them along with the requests of another site.
"""

REQUEST_ID = "X-Request-ID"
"""Header that names a request, in its answer and in the log: the caller's own if it is sane, else made here."""

_SANE = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_log = logging.getLogger("alserve.request")


class AccessMiddleware:
    """ASGI application before two others: checks host, token, page and content type; counts and logs.

    Our own pages are not reached through BentoML's application, which would keep something of every request in memory,
    answered or not, until its time limit has passed: of one that was refused, the body.

    An answer that is given before the request's body is read to its end closes the connection, or all of the body would
    have to be taken in first.

    Args:
        app: BentoML's; it answers the health pages, and starts and stops both.
        site: What answers all others; `site.state.settings` holds token and hosts.
    """

    def __init__(self, app: ASGIApp, *, site: Starlette) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        request_id = given if _SANE.fullmatch(given) else uuid.uuid4().hex
        page = self._page(scope)
        status = 500
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def receive_and_note() -> Message:
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = {REQUEST_ID: request_id, "X-Content-Type-Options": "nosniff"}
                MutableHeaders(scope=message).update(more | {"Connection": "close"} if unread else more)
            await send(message)

        start = perf_counter()
        with IN_PROGRESS.track_inprogress():
            try:
                answering = self._app if page in HEALTH else self._site
                await (self._refusal(page, headers, scope) or answering)(scope, receive_and_note, send_and_note)
            finally:
                seconds = perf_counter() - start
                REQUESTS.labels(page or "unknown", status).inc()
                REQUEST_SECONDS.labels(page or "unknown").observe(seconds)
                if page not in HEALTH:
                    note = {"request_id": request_id, "status": status, "seconds": round(seconds, 4)}
                    _log.info("%s %s", scope["method"], scope["path"], extra=note)

    def _page(self, scope: Scope) -> str | None:
        """Return the page that is asked for, by the path of its route; None where there is none."""
        if scope["path"] in HEALTH:
            return str(scope["path"])
        found = (route for route in self._site.routes if route.matches(scope)[0] != Match.NONE)
        return getattr(next(found, None), "path", None)

    def _refusal(self, page: str | None, headers: Headers, scope: Scope) -> JSONResponse | None:
        if "transfer-encoding" in headers and ("content-length" in headers or scope["http_version"] == "1.0"):
            twice = "the length of the body is said in two ways; send Content-Length or, in HTTP/1.1, Transfer-Encoding"
            return JSONResponse({"error": twice}, 400, {"Connection": "close"})
        settings = self._site.state.settings
        token = settings.token
        if not token and page not in HEALTH:  # a probe asks by the address of the container
            address, _ = scope.get("server") or ("", None)
            if error := host_error(headers, address, settings.hosts):
                return JSONResponse({"error": error}, 403)
        if token and page not in PUBLIC:
            given = _given_token(headers, basic=(page or "").startswith(LABEL_STUDIO))
            if not hmac.compare_digest(given, token.get_secret_value().encode()):
                return JSONResponse(
                    {"error": "the request needs the header 'Authorization: Bearer TOKEN' with the service's token"},
                    401,
                    {"WWW-Authenticate": "Bearer"},
                )
        if page is None:
            return JSONResponse({"error": "there is no such page; see /docs"}, 404)
        if "pickle" in headers.get("content-type", "").lower():
            return JSONResponse({"error": "pickled content is not accepted; send an image file"}, 415)
        return None


def _given_token(headers: Headers, *, basic: bool) -> bytes:
    """Return the token that a request carries; nothing where it carries none.

    Args:
        headers: Of the request.
        basic: Whether it may be the password of basic authentication, too.
    """
    scheme, _, given = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return given.strip().encode("latin-1")
        case "basic" if basic:
            with suppress(ValueError):
                return base64.b64decode(given.strip(), validate=True).partition(b":")[2]
    return b""
