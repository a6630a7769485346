"""Runs on a Ray cluster: each is one task, which starts a process as on one machine."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from alserve import __version__
from alserve.errors import DeviceError
from alserve.ray_connection import connected_to_ray, first_words
from training.compare.jobs import LOOK_SECONDS, Done, RunJob
from training.compare.process import run_process


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
    if not jobs:
        return
    with connected_to_ray(address):
        import ray  # noqa: PLC0415  an extra

        resources = share([node["Resources"] for node in ray.nodes() if node["Alive"]], jobs, at_once)
        task = ray.remote(num_cpus=resources["num_cpus"], num_gpus=resources["num_gpus"])(_run)
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
                    failure = f"Ray: {first_words(error)}"
                done(job, failure)
            look()


def _run(job: str, log: str, folder: str, threads: int, version: str) -> str | None:
    """Run one job, in a task; return what went wrong."""
    if version != __version__:
        return f"its machine has alserve {__version__}, the one that asks {version}; install the same on all"
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
