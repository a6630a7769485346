"""Servers on this machine, and clients that send images to them."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from common import ALSERVE, HERE

from alserve.modelfile import default_model

BOUNDARY = "benchmark"

_own = threading.local()
"""The connections of each thread."""


def closed_loop(port: int, images: Sequence[bytes], requests: int, clients: int) -> None:
    """Send requests from several clients, each as soon as it has its answer."""
    numbers = count()

    def work() -> None:
        while (number := next(numbers)) < requests:
            ask(port, images[number % len(images)])

    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(work) for _ in range(clients)]:
            done.result()


def ask(port: int, image: bytes) -> bytes:
    """Post an image over this thread's own connection; return the mask's PNG."""
    status, data = post(port, image)
    if status != http.HTTPStatus.OK:
        raise SystemExit(f"port {port} answered {status}: {data[:200]!r}")
    return data


def post(port: int, image: bytes, *, keep: bool = True) -> tuple[int, bytes]:
    """Post an image over this thread's own connection, kept for the next; return the answer's status and body."""
    connections: dict[int, http.client.HTTPConnection] = _own.__dict__.setdefault("connections", {})
    connection = connections.setdefault(port, http.client.HTTPConnection("127.0.0.1", port, timeout=120))
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    kept = connection.sock is not None
    try:
        connection.request("POST", "/segment", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        if kept:  # the server closes connections that were idle for some seconds
            return post(port, image, keep=keep)
        raise
    finally:
        if not keep:
            connection.close()


@contextmanager
def alserve_server(folder: Path, **environment: str) -> Iterator[int]:
    """Run `alserve serve`, with more environment variables; yield its port."""
    log = folder / f"alserve-{'-'.join(environment.values())}.log"
    with running([*ALSERVE, "serve"], log, **environment) as port:
        yield port


@contextmanager
def fastapi_server(folder: Path) -> Iterator[int]:
    """Run the hand-written endpoint; yield its port."""
    command = ["uvicorn", "fastapi_endpoint:app", "--app-dir", str(HERE), "--no-access-log"]
    with running([sys.executable, "-m", *command], folder / "fastapi.log") as port:
        yield port


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[int]:
    """Run a server on a free port until the block ends; the block begins once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {**os.environ, "MODEL": str(default_model()), **environment}
    with log.open("wb") as output:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output, env=variables)
    try:
        until = time.monotonic() + 90
        while not is_ready(port):
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command} does not start:\n{log.read_text()}")
            time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait()


def is_ready(port: int) -> bool:
    """Return whether a server answers its /readyz."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
