"""A Ray cluster: reached, or started on this machine, checked, and quiet."""

import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO, cast

from alserve import __version__
from alserve.errors import DeviceError, OptionError
from alserve.folder.engines import Setup
from alserve.runtime.device import AUTO, available_cores
from alserve.runtime.libraries import RUNTIMES
from alserve.terminal import say

WAIT_SECONDS = 45
"""Time in which a cluster must have a place for one actor."""

_KNOCK_SECONDS = 10
"""Time in which the head of a cluster must answer."""

_STORE_BYTES = 256 << 20
"""Ray's object store, where Ray is started here: names and rows are small."""

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ENABLE_AUTO_CONNECT": "0"}
"""Settings of Ray in this process: it reports to nobody, says nothing but what stands in errors, and is not started
anew by a thread that comes late."""

_NICENESS = {"RAY_worker_niceness": "0"}
"""And where Ray is started here: actors come before other work as this process does; Ray's default puts them last."""

_TELLER = "ray_listen_error_messages"
"""Ray's thread that prints messages."""


@dataclass(frozen=True)
class Cluster:
    """What a run has of a cluster."""

    device: str
    """Kind of device of every actor, such as "cpu" or "cuda"."""
    threads: int
    """Batches that an actor works on at once, and cores that it takes."""
    gpus: int
    """GPUs that an actor takes."""
    actors: int
    """Actors that the cluster has room for."""
    machines: int
    """Machines on which there is room."""

    def describe(self) -> str:
        """Say in a few words what runs where."""
        machines = f"{self.machines} machine{'' if self.machines == 1 else 's'}"
        return f"{self.actors * self.threads} at once on {machines}"


@contextmanager
def connected(setup: Setup) -> Iterator[Cluster]:
    """Reach a Ray cluster, or start Ray on this machine, and check that it can do the run.

    A program that uses Ray already keeps its connection.

    Args:
        setup: What the engine is opened with; its `address`, else `RAY_ADDRESS`, names the cluster.

    Raises:
        OptionError: Ray is not installed, or the address cannot be used.
        DeviceError: The cluster cannot be reached, has another Python or another alserve, or no place for an actor.
    """
    if find_spec("ray") is None:
        raise OptionError("--engine ray needs Ray; run: pip install 'alserve[ray]'")
    with ExitStack() as opened:
        address = _connect(setup.address, opened)
        yield _check(setup, address)


def _connect(given: str | None, opened: ExitStack) -> str:
    """Connect to Ray, unless this program has done so; return in words where that is."""
    address = given or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise OptionError(
            f"--address {address}: Ray's client is too slow for this; start the run on a machine of the cluster, with "
            "HOST:6379 or auto"
        )
    os.environ |= {**_QUIET, **(_NICENESS if address == "local" else {}), **os.environ}
    if address == "local" and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on all addresses of a machine and runs what it is sent: nobody else may send anything.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}
    import ray.data  # noqa: PLC0415  an extra

    where = "this machine" if address == "local" else f"the Ray cluster at {address}"
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        return where
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
    try:
        with _silent():
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **settings)
        opened.enter_context(redirect_stdout(cast("TextIO", _WithoutRay(sys.stdout))))
    except Exception as error:  # noqa: BLE001  Ray raises many unrelated types
        raise DeviceError(f"{where}: Ray cannot be used: {_first_words(error)}") from None
    opened.callback(ray.shutdown)
    return where


def _knock(address: str, where: str) -> None:
    """Check that somebody listens at HOST:PORT: Ray tries for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()
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


def _first_words(error: Exception) -> str:
    """Return an error's first lines as one: Ray's first often ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__


def _check(setup: Setup, where: str) -> Cluster:
    """Check that the cluster has what the run needs, on machines that can do it.

    Raises:
        DeviceError: It has not.
    """
    import ray  # noqa: PLC0415  an extra

    device = setup.device
    if device == AUTO:
        device = "cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu"
    if device not in RUNTIMES:
        hint = "; Ray picks the GPU: give cuda" if ":" in device else ""
        raise DeviceError(f"--device {device}: --engine ray knows auto, {', '.join(RUNTIMES)}{hint}")
    gpus = int(RUNTIMES[device].numbered)
    threads = setup.threads or _share_of_cores(gpus)
    _wait_for_place(threads, gpus, where)
    nodes = [node for node in ray.nodes() if _room(node, threads, gpus)]
    _check_versions(nodes, where)
    return Cluster(device, threads, gpus, sum(_room(node, threads, gpus) for node in nodes), len(nodes))


def _share_of_cores(gpus: int) -> int:
    """Return the cores for one actor: one, or those that each GPU has for itself."""
    import ray  # noqa: PLC0415  an extra

    if not gpus:
        return 1
    found = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= 1]
    return max(1, min((int(each.get("CPU", 1) // each["GPU"]) for each in found), default=1))


def _room(node: dict[str, Any], threads: int, gpus: int) -> int:
    """Return the number of actors that a machine has room for, if it did nothing else."""
    resources = node["Resources"] if node["Alive"] else {}
    cores = int(resources.get("CPU", 0) // threads)
    return min(cores, int(resources.get("GPU", 0) // gpus)) if gpus else cores


def _wait_for_place(threads: int, gpus: int, where: str) -> None:
    """Wait until there is a place for one actor; a cluster that grows as it is asked to grows meanwhile."""
    import ray  # noqa: PLC0415  an extra
    from ray.util import placement_group, remove_placement_group  # noqa: PLC0415

    place = placement_group([{"CPU": threads, **({"GPU": gpus} if gpus else {})}])
    found = place.wait(WAIT_SECONDS)
    remove_placement_group(place)
    if found:
        return
    wanted = f"{threads} core{'' if threads == 1 else 's'}{' and a GPU' if gpus else ''}"
    total = ray.cluster_resources()
    there = f"{total.get('CPU', 0):g} cores and {total.get('GPU', 0):g} GPUs on {len(ray.nodes())} machines"
    raise DeviceError(
        f"{where}: no machine had {wanted} free within {WAIT_SECONDS} s (in all: {there}); ask for less with --threads "
        "or --device, add machines, or wait for other jobs"
    )


def _check_versions(nodes: Sequence[dict[str, Any]], where: str) -> None:
    """Check that all machines have this alserve."""
    import ray  # noqa: PLC0415  an extra
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    @ray.remote(num_cpus=0, max_retries=0)
    def look() -> str:  # sent as it is, so that it runs where there is no alserve
        from importlib import import_module  # noqa: PLC0415

        try:
            return f"alserve {import_module('alserve').__version__}"
        except ImportError as error:
            return f"no alserve that can be used ({error})"

    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in nodes
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=WAIT_SECONDS)
    for answer in answered:
        try:
            found = ray.get(answer)
        except ray.exceptions.RayError:  # the machine is lost; others do its part
            continue
        if found != f"alserve {__version__}":
            raise DeviceError(
                f"{where}: machine {asked[answer]['NodeManagerHostname']} has {found}, this one alserve {__version__}; "
                "install the same on all"
            )
