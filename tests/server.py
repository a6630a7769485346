"""A real server process for the tests: started as a user starts it, waited for, told to stop."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

UV = [sys.executable, "-m", "uv"]

START_SECONDS = 90
STOP_SECONDS = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """The tests' own environment without settings of the service, and with BentoML's files in `folder`.

    A variable of `more` that is empty is taken away.
    """
    kept = {name: os.environ[name] for name in os.environ if not name.startswith(("ALSERVE_", "PYTHONPATH"))}
    given = {**kept, "BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", **more}
    return {name: value for name, value in given.items() if value}


def call(command: Sequence[str | Path], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in `folder`."""
    return subprocess.run(
        command,
        cwd=folder,
        env=clean_environment(folder, **environment),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@contextmanager
def serving(
    command: Sequence[str], folder: Path, *, health: str = "/readyz", **environment: str
) -> Iterator[httpx.Client]:
    """Run `command --port FREE` in `folder`; yield a client once `health` answers; check that SIGTERM ends it."""
    port = free_port()
    log = folder / f"server-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            env=clean_environment(folder, **environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait_until_up(client, health, process, log)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)  # never SIGKILL alone: it would leave the worker process behind
        code = process.wait(STOP_SECONDS)
    assert code == 0, log.read_text()
    with socket.socket() as again:  # no worker is left that holds the port
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def living_workers(client: httpx.Client) -> dict[int, psutil.Process]:
    """The worker processes of the server that `client` asks, by process id."""
    (server,) = (child for child in psutil.Process().children() if str(client.base_url.port) in child.cmdline())
    return {child.pid: child for child in server.children() if is_alive(child)}


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _wait_until_up(client: httpx.Client, health: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            if client.get(health).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{health} does not answer after {START_SECONDS} s: {log.read_text()}")
