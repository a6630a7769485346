"""How the processes of a training come to be: alone, started here, or by torchrun or Slurm."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from alserve.errors import DeviceError
from alserve.runtime.device import available_cores
from training.distributed.group import ALONE, Group
from training.distributed.joined import JoinedGroup
from training.distributed.local import LocalGroup
from training.distributed.ranks import Ranks


@contextmanager
def training_group(devices: int, nodes: int, accelerator: str) -> Iterator[Group]:
    """Yield this process's group: a process alone, the first of those started here, or one that a launcher started.

    A process that is not the first does its part before the group is yielded, and is done then.

    Args:
        devices: Processes on each machine.
        nodes: Machines.
        accelerator: "cpu" or "gpu".

    Raises:
        DeviceError: There are not so many devices, or other processes than these were started.
        RunError: Another process has ended, or did not come.
        SystemExit: The first process has ended with an error.
    """
    _check_devices(devices, accelerator)
    group = _group(devices, nodes, accelerator)
    code = 2
    try:
        if isinstance(group, JoinedGroup) and group.ranks.rank > 0:
            group.serve()
        yield group
        code = 0
    finally:
        if isinstance(group, JoinedGroup) and group.ranks.rank == 0:
            group.close(code)


def _group(devices: int, nodes: int, accelerator: str) -> Group:
    """Return the group that was asked for."""
    asked = f"--devices {devices} --nodes {nodes}"
    if TorchElasticEnvironment.detect():
        started = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if started != (devices * nodes, devices):
            raise DeviceError(
                f"{asked}: torchrun has started {started[0]} processes, {started[1]} on this machine; "
                f"give --devices {started[1]} --nodes {started[0] // started[1]}"
            )
        return _joined(TorchElasticEnvironment(), devices, accelerator) if devices * nodes > 1 else ALONE
    if devices * nodes == 1:
        return ALONE
    if SLURMEnvironment.detect():
        wanted = f"srun --nodes={nodes} --ntasks-per-node={devices}"
        try:
            slurm = SLURMEnvironment(auto_requeue=False)
            slurm.validate_settings(devices, nodes)
        except (RuntimeError, ValueError):
            raise DeviceError(f"{asked}: Slurm has started other processes; use {wanted}") from None
        if slurm.world_size() != devices * nodes:
            raise DeviceError(f"{asked}: Slurm has started {slurm.world_size()} processes; use {wanted}")
        return _joined(slurm, devices, accelerator, f"tcp://{slurm.main_address}:{slurm.main_port}")
    if nodes > 1:
        raise DeviceError(
            f"--nodes {nodes}: start the command on every machine, by torchrun or by Slurm, such as "
            f"'srun --nodes={nodes} --ntasks-per-node={devices} alserve train ... {asked}'"
        )
    if accelerator == "cpu" and devices > (cores := available_cores()):
        raise DeviceError(f"--devices {devices}: this machine has {cores} CPU cores")
    return LocalGroup(0, devices, accelerator)


def _joined(environment: ClusterEnvironment, devices: int, accelerator: str, where: str = "env://") -> JoinedGroup:
    """Return a group whose processes have met."""
    ranks = Ranks(environment.global_rank(), environment.world_size())
    group = JoinedGroup(ranks, devices, environment, accelerator)
    group.join(where)
    return group


def _check_devices(devices: int, accelerator: str) -> None:
    if accelerator == "gpu" and devices > (gpus := torch.cuda.device_count()):
        raise DeviceError(f"--devices {devices}: this process sees {gpus} GPU{'' if gpus == 1 else 's'}")
