"""A connection to a Ray cluster, or to Ray started on this machine: quiet, and closed to others."""

import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO, cast

from alserve.errors import DeviceError, OptionError
from alserve.runtime.device import available_cores
from alserve.terminal import say

KNOCK_SECONDS = 10
"""Time in which the head of a cluster must answer."""

_STORE_BYTES = 256 << 20
"""Ray's object store, where Ray is started here: names and rows are small."""

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ENABLE_AUTO_CONNECT": "0"}
"""Settings of Ray in this process: it reports to nobody, says nothing but what stands in errors, and is not started
anew by a thread that comes late."""

_NICENESS = {"RAY_worker_niceness": "0"}
"""And where Ray is started here: its work comes before other work as this process does; Ray's default puts it last."""

_TELLER = "ray_listen_error_messages"
"""Ray's thread that prints messages."""


@contextmanager
def connected_to_ray(given: str | None) -> Iterator[str]:
    """Reach a Ray cluster, or start Ray on this machine; a program that uses Ray already keeps its connection.

    Args:
        given: HOST:PORT of the cluster, or "auto" on one of its machines. Default: `RAY_ADDRESS`, else this machine.

    Yields:
        Where that is, for messages.

    Raises:
        OptionError: Ray is not installed, or the address is of Ray's client.
        DeviceError: It cannot be reached.
    """
    if find_spec("ray") is None:
        raise OptionError("--engine ray needs Ray; run: pip install 'alserve[ray]'")
    address = given or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise OptionError(
            f"--address {address}: Ray's client is too slow for this; start the command on a machine of the cluster, "
            "with HOST:6379 or auto"
        )
    os.environ |= {**_QUIET, **(_NICENESS if address == "local" else {}), **os.environ}
    if address == "local" and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on all addresses of a machine and runs what it is sent: nobody else may send anything.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}
    import ray  # noqa: PLC0415  an extra

    where = "this machine" if address == "local" else f"the Ray cluster at {address}"
    with ExitStack() as opened:
        if not ray.is_initialized():
            _connect(address, where, opened)
        yield where


def _connect(address: str, where: str, opened: ExitStack) -> None:
    import ray  # noqa: PLC0415  an extra

    _knock(address, where)
    settings: dict[str, Any] = {}
    if address == "local":
        say("starting Ray on this machine, which takes some seconds")
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        settings = {
            "num_cpus": available_cores(),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": folder,
        }
    opened.callback(ray.shutdown)  # what fails half-way is connected, too
    try:
        with _silent():
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **settings)
        opened.enter_context(redirect_stdout(cast("TextIO", _WithoutRay(sys.stdout))))
    except Exception as error:  # noqa: BLE001  Ray raises many unrelated types
        words = first_words(error, 6)
        hint = "; install the same on all machines" if words.startswith("Version mismatch") else ""
        raise DeviceError(f"{where}: Ray cannot be used: {words}{hint}") from None


def _knock(address: str, where: str) -> None:
    """Check that somebody listens at HOST:PORT: Ray tries for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DeviceError(f"{where}: cannot be reached: {reason}; give HOST:PORT of its head") from None


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what a library writes to standard error past Python."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class _WithoutRay:
    """A stream without what Ray tells of lost machines and tasks, in dozens of lines, past its logging."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name == _TELLER else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)


def first_words(error: Exception, most: int = 3) -> str:
    """Return an error's first lines as one, of 300 characters at most: Ray's first often ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:most])[:300] or type(error).__name__
