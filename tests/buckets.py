"""Buckets of an S3 server on this machine, and a way to it that fails as a test wants."""

import logging
import threading
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import HTTPError
from urllib.parse import quote, unquote_plus, urlsplit
from urllib.request import Request, urlopen

import pytest

from alserve.places.client import open_bucket

AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server, which the environment names, with credentials, as long as it runs."""
    pytest.importorskip("obstore", reason="needs alserve[cloud]")
    server = pytest.importorskip("moto.server", reason="needs moto[server]")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "not-a-key"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2-is-secret"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ENDPOINT_URL", address),
        ):
            patch.setenv(name, value)
        open_bucket.cache_clear()
        yield address
    open_bucket.cache_clear()
    started.stop()


class Bucket(MutableMapping[str, bytes]):
    """The objects of a bucket by key, whatever characters it has; the bucket is made."""

    def __init__(self, server: str, name: str) -> None:
        self.address, self.url = f"{server}/{name}", f"s3://{name}"
        self._ask("PUT", "")

    def _ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        headers = {"Authorization": AUTHORIZATION, "Content-Type": "application/octet-stream"}
        request = Request(f"{self.address}{path}", data or (b"" if method == "PUT" else None), headers, method=method)  # noqa: S310
        with urlopen(request) as answer:  # noqa: S310
            found: bytes = answer.read()
        return found

    def __setitem__(self, key: str, data: bytes) -> None:
        self._ask("PUT", f"/{quote(key, safe='/')}", data)

    def __getitem__(self, key: str) -> bytes:
        try:
            return self._ask("GET", f"/{quote(key, safe='/')}")
        except HTTPError:
            raise KeyError(key) from None

    def __delitem__(self, key: str) -> None:
        self._ask("DELETE", f"/{quote(key, safe='/')}")

    def __iter__(self) -> Iterator[str]:
        text = self._ask("GET", "?list-type=2&encoding-type=url&max-keys=1000").decode()
        yield from (unquote_plus(part.split("</Key>")[0]) for part in text.split("<Key>")[1:])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def below(self, folder: str) -> dict[str, bytes]:
        """The objects of a folder by their names below it."""
        return {key.removeprefix(f"{folder}/"): self[key] for key in self if key.startswith(f"{folder}/")}


def on_disk(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their names below it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class FaultyWay:
    """A server in front of another one, which passes requests on or answers them with an error.

    Attributes:
        refuse: Methods that are answered with 403.
        throttle: Number of requests, for each method and path, that are answered with 503 before one is passed on.
        page: Names in one answer to a listing, at most.
        forgetful: Listings begin with the first name, whichever was asked for.
        gone_after: Number of requests after which none is answered any more.
        asked: How often each method was asked for.
    """

    def __init__(self, server: str) -> None:
        self.refuse: set[str] = set()
        self.throttle = 0
        self.page = 1000
        self.forgetful = False
        self.gone_after: int | None = None
        self.asked: Counter[str] = Counter()
        self._seen: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        way, host = self, urlsplit(server).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = way.fault(self.command, self.path)
                if fault == 0:
                    self.close_connection = True
                    self.connection.close()
                    return
                if fault:
                    code = "AccessDenied" if fault == 403 else "SlowDown"
                    self.reply(
                        fault, {}, b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
                    )
                    return
                connection = HTTPConnection(host, timeout=60)
                path = f"{self.path}&max-keys={way.page}" if "list-type=2" in self.path else self.path
                if way.forgetful:
                    path = path.replace("start-after=", "x-start=")
                connection.request(self.command, path, body, dict(self.headers))
                found = connection.getresponse()
                self.reply(found.status, dict(found.getheaders()), found.read())
                connection.close()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815  http.server wants these names

            def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                kept = {
                    name: value
                    for name, value in headers.items()
                    if name.lower() not in {"transfer-encoding", "connection"}
                }
                kept.setdefault("Content-Length", str(len(body)))
                for name, value in kept.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, method: str, path: str) -> int | None:
        """The status to answer with; 0 to hang up, None to pass the request on."""
        with self._lock:
            self.asked[method] += 1
            if self.gone_after is not None and self.asked.total() > self.gone_after:
                return 0
            if method in self.refuse:
                return 403
            self._seen[method, path] += 1
            return 503 if self._seen[method, path] <= self.throttle else None

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
