"""What a folder run has of a Ray cluster, checked before anything is done."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alserve import __version__
from alserve.errors import DeviceError
from alserve.folder.engines import Setup
from alserve.ray_connection import connected_to_ray
from alserve.runtime.device import AUTO
from alserve.runtime.libraries import RUNTIMES

WAIT_SECONDS = 45
"""Time in which a cluster must have a place for one actor."""


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
    """Actors that the cluster had room for when the run was started."""
    machines: int
    """Machines on which there was room."""

    def describe(self) -> str:
        """Say in a few words what runs where."""
        machines = f"{self.machines} machine{'' if self.machines == 1 else 's'}"
        return f"{self.actors * self.threads} at once on {machines}"

    def room(self) -> int:
        """Return the number of actors that the cluster has room for now; machines join and are lost."""
        import ray  # noqa: PLC0415  an extra

        return sum(_room(node, self.threads, self.gpus) for node in ray.nodes())


@contextmanager
def connected(setup: Setup) -> Iterator[Cluster]:
    """Connect to Ray, see `connected_to_ray`, and check that it can do the run.

    Args:
        setup: What the engine is opened with; its `address`, else `RAY_ADDRESS`, names the cluster.

    Raises:
        OptionError: Ray is not installed, or the address cannot be used.
        DeviceError: The cluster cannot be reached, has another Python or another alserve, or no place for an actor.
    """
    with connected_to_ray(setup.address) as where:
        yield _check(setup, where)


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
