"""The server behind the page: on this machine's own address, in a thread, as long as a command runs."""

import os
import re
import secrets
import socket
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import uvicorn

from alserve.errors import ServiceError
from alserve.files import locked, open_atomic
from alserve.terminal import say
from training.annotate.browser.session import Session
from training.annotate.browser.site import build_site

ADDRESS = "127.0.0.1"

CONNECTIONS = 64
"""Requests at once, at most."""

RETURN_SECONDS = 3.0
"""How long a page that was open already has to find the new server, before another is opened."""

STOP_SECONDS = 5
"""For the answers under way."""

REPORT_SECONDS = 20.0
"""How long an open page has to fetch the report."""

OTHERS_SECONDS = 2.5
"""How long the pages in other windows then have: they ask every second."""

_LINK = """<!doctype html><meta charset="utf-8"><title>alserve</title>
<meta http-equiv="refresh" content="0; url={url}"><a href="{url}">Draw masks</a>
"""


@contextmanager
def serving(folder: Path, session: Session, *, port: int = 0, opens: bool | None = None) -> Iterator[str]:
    """Serve the page for the time of the block, and open it.

    The file `page.html` in the folder leads to the page. It holds the token, so nobody else may read it, and a command
    that is started again keeps address and token: a page that is still open finds it.

    Args:
        folder: Where the masks are drawn.
        session: What is shown.
        port: To listen on. Default: the one before, or a free one.
        opens: Whether to open the page. Default: where there is a display.

    Yields:
        The address.

    Raises:
        RunError: Another process serves the folder.
        ServiceError: The port cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "page.html"
    before, token = _read_link(link)
    with locked(link), _listen(port, before) as listening:
        url = f"http://{ADDRESS}:{listening.getsockname()[1]}/#{token}"
        with open_atomic(link) as file:
            Path(file.name).chmod(0o600)
            file.write(_LINK.format(url=url).encode())
        config = uvicorn.Config(
            build_site(session, token),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, args=([listening],), name="page", daemon=True)
        thread.start()
        try:
            if opens if opens is not None else _has_display():
                Thread(target=_open, args=(link, session), daemon=True).start()
            yield url
        finally:
            server.should_exit = True
            thread.join(2 * STOP_SECONDS)


def wait_for_report(session: Session) -> None:
    """Let a page that is open fetch the report before the server goes."""
    end = time.monotonic() + REPORT_SECONDS
    while session.page_is_open and time.monotonic() < end and not session.report_shown.wait(0.2):
        pass
    if session.report_shown.is_set():
        time.sleep(OTHERS_SECONDS)


def _listen(port: int, before: int) -> socket.socket:
    for wanted in dict.fromkeys([port] if port else [before, 0]):
        listening = socket.socket()
        if sys.platform != "win32":  # there it would share a port that is in use
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((ADDRESS, wanted))
            listening.listen()  # from now on who comes waits for the server
        except OSError as error:
            listening.close()
            fault = error.strerror
        else:
            return listening
    raise ServiceError(f"cannot listen on {ADDRESS}, port {port}: {fault}; choose another --port")


def _read_link(link: Path) -> tuple[int, str]:
    """Return the port and the token of the last time; where others could have read it, no port and a new token."""
    with suppress(OSError, UnicodeDecodeError):
        if os.name != "nt" and link.stat().st_mode & 0o077:
            return 0, secrets.token_urlsafe(32)
        if found := re.search(rf"http://{re.escape(ADDRESS)}:(\d{{1,5}})/#([\w-]{{43}})\"", link.read_text()):
            return int(found[1]) % 65536, found[2]
    return 0, secrets.token_urlsafe(32)


def _has_display() -> bool:
    return sys.platform in {"darwin", "win32"} or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )


def _open(link: Path, session: Session) -> None:
    """Open the page by its file, not by its address, which other users could read in the list of processes."""
    end = time.monotonic() + RETURN_SECONDS
    while time.monotonic() < end:
        if session.page_is_open:
            return
        time.sleep(0.1)
    with suppress(webbrowser.Error):
        if webbrowser.open(link.absolute().as_uri()):
            return
    say("no browser could be opened; open the address yourself")
