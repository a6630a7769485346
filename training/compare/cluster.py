"""Runs on a Ray cluster: each is one task, which starts a process as on one machine."""

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alserve import __version__
from alserve.errors import DeviceError, OptionError
from alserve.runtime.device import available_cores
from training.compare.jobs import LOOK_SECONDS, Done, RunJob
from training.compare.process import run_process

STORE_BYTES = 256 << 20
"""Ray's object store, where Ray is started here: tasks return a line."""

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_worker_niceness": "0"}
"""Of Ray: it reports to nobody, says nothing but what stands in errors, and does not put its tasks after other work."""


def run_on_cluster(
    jobs: Sequence[RunJob],
    logs: Path,
    at_once: int,
    done: Done,
    look: Callable[[], None],
    *,
    address: str | None = None,
) -> None:
    """Run all jobs as tasks of Ray; one whose machine is lost goes on at another.

    A task takes as many cores as its run has threads, and a share of a GPU where the cluster has GPUs.

    Args:
        jobs: The runs, in the order in which they are asked for.
        logs: Folder for `NAME.log`, to which a run's output is appended.
        at_once: Number of runs at the same time on each machine.
        done: See `Done`.
        look: Called now and then while they run, and as each ends.
        address: The cluster: HOST:PORT, or "auto" on one of its machines. Default: RAY_ADDRESS, else Ray is started on
            this machine.

    Raises:
        DeviceError: The cluster cannot be reached, or no machine of it has what a run takes.
        OptionError: Ray is not installed, or the address cannot be used.
    """
    if find_spec("ray") is None:
        raise OptionError("--engine ray needs Ray; run: pip install 'alserve[ray]'")
    if not jobs:
        return
    with _connected(address) as ray:
        resources = share([node["Resources"] for node in ray.nodes() if node["Alive"]], jobs, at_once)
        task = ray.remote(**resources)(_run)
        threads, folder = int(resources["num_cpus"]), str(Path.cwd())
        running = {
            task.remote(job.as_json(), str(logs / f"{job.name}.log"), folder, threads, __version__): job for job in jobs
        }
        while running:
            ended, _ = ray.wait(list(running), timeout=LOOK_SECONDS)
            for result in ended:
                job = running.pop(result)
                try:
                    failure = ray.get(result)
                except ray.exceptions.RayError as error:
                    failure = f"Ray: {_in_one_line(error)}"
                done(job, failure)
            look()


def _run(job: str, log: str, folder: str, threads: int, version: str) -> str | None:
    """Run one job, in a task; return what went wrong."""
    if version != __version__:
        return f"alserve {__version__} is on that machine, and {version} on the one that asks"
    try:
        os.chdir(folder)
        return run_process(job, Path(log), {**os.environ, "OMP_NUM_THREADS": str(threads)}, set())
    except OSError as error:
        return f"{error.filename}: {error.strerror}; machines of a cluster need storage that they share"


def share(machines: Sequence[Mapping[str, float]], jobs: Sequence[RunJob], at_once: int) -> dict[str, float]:
    """Return what each task takes, so that so many fit on the smallest machine.

    Args:
        machines: What each has, by Ray's names.
        jobs: The runs.
        at_once: How many are to fit.

    Raises:
        DeviceError: No machine has it.
    """
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    gpus = [machine["GPU"] for machine in machines if machine.get("GPU", 0) > 0]
    if not cores:
        raise DeviceError("--engine ray: no machine of the cluster has a CPU core for a run")
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, min(cores) // at_once))
    if threads > max(cores):
        raise DeviceError(
            f"OMP_NUM_THREADS {threads}: the largest machine of the Ray cluster has {max(cores)} cores, so no run "
            "would begin"
        )
    devices = {job.device for job in jobs}
    if "cuda" in devices and not gpus:
        raise DeviceError("--device cuda: no machine of the Ray cluster has a GPU; use auto or cpu")
    return {"num_cpus": threads, "num_gpus": min(1.0, min(gpus) / at_once) if gpus and devices != {"cpu"} else 0}


@contextmanager
def _connected(given: str | None) -> Iterator[Any]:
    """Connect to Ray, or start it on this machine; yield its module.

    Raises:
        DeviceError: It cannot be reached.
        OptionError: The address is of Ray's client.
    """
    address = given or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise OptionError(
            f"--address {address}: start the experiment on a machine of the cluster, with HOST:6379 or auto"
        )
    os.environ |= {**SETTINGS, **os.environ}
    if address == "local" and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on all addresses of a machine and runs what it is sent: nobody else may send anything.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}
    import ray  # noqa: PLC0415  an extra

    with ExitStack() as opened:
        settings: dict[str, Any] = {}
        if address == "local":
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
            settings = {
                "num_cpus": available_cores(),
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": folder,
            }
        if not ray.is_initialized():  # a program that uses Ray keeps its connection
            try:
                with _silent():
                    ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **settings)
            except Exception as error:  # noqa: BLE001  Ray raises many unrelated types
                where = "this machine" if address == "local" else address
                raise DeviceError(f"{where}: Ray cannot be used: {_in_one_line(error)}") from None
            opened.callback(ray.shutdown)
        yield ray


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


def _in_one_line(error: Exception) -> str:
    """Return an error's first lines as one: Ray's first often ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__
