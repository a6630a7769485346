"""Which processes train: alone, started here, by torchrun or by Slurm; and what does not fit is one line."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from drawn import UNTRAINED, settings
from jobs import killed, whole_of_each

from alserve.errors import DataError, DeviceError, RunError
from alserve.runtime.device import available_cores
from training.distributed.group import ALONE
from training.distributed.local import LocalGroup
from training.distributed.start import training_group
from training.train import check_shares, train_run

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "GROUP_RANK": "0",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
}
SLURM = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_PROCID": "0"}


def test_a_process_alone_whatever_slurm_runs_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an array of runs."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    with training_group(1, 1, "cpu") as group:
        assert group is ALONE


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "words"),
    [
        ({}, 1, 2, "--nodes 2: start the command on every machine, by torchrun or by Slurm, such as 'srun --nodes=2"),
        (TORCHRUN, 2, 1, "torchrun has started 4 processes, 2 on this machine; give --devices 2 --nodes 2"),
        (TORCHRUN, 1, 1, "torchrun has started 4 processes, 2 on this machine; give --devices 2 --nodes 2"),
        (SLURM, 3, 2, "Slurm has started other processes; use srun --nodes=2 --ntasks-per-node=3"),
        (SLURM, 2, 1, "Slurm has started other processes; use srun --nodes=1 --ntasks-per-node=2"),
        ({"SLURM_NTASKS": "4"}, 2, 2, "Slurm has started other processes; use srun --nodes=2 --ntasks-per-node=2"),
        ({**SLURM, "SLURM_NTASKS": "3"}, 2, 2, "Slurm has started 3 processes; use srun --nodes=2 --ntasks-per-node"),
    ],
    ids=["nodes-alone", "torchrun-nodes", "torchrun-devices", "slurm-tasks", "slurm-nodes", "slurm-alone", "slurm-odd"],
)
def test_other_processes_than_were_started(
    environment: Mapping[str, str], devices: int, nodes: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError) as refused, training_group(devices, nodes, "cpu"):
        pass
    assert words in str(refused.value)


def test_more_devices_than_there_are(tmp_path: Path) -> None:
    cores = available_cores()
    given = settings(UNTRAINED, batch=cores + 1, class_batch=cores + 1)
    with pytest.raises(DeviceError, match=f"--devices {cores + 1}: this machine has {cores} CPU core"):
        train_run(tmp_path, tmp_path / "run", given, device="cpu", devices=cores + 1)
    with pytest.raises(DeviceError, match="--devices 9: this process sees 0 GPUs"), training_group(9, 1, "gpu"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_shared_evenly() -> None:
    check_shares(settings(batch=6, class_batch=4), 2)
    check_shares(settings(batch=6, class_batch=4, encoder_lr=0, method="masks-only"), 3)
    with pytest.raises(DataError, match="4 processes cannot share batch 6 evenly; add --set batch=8"):
        check_shares(settings(batch=6), 4)
    with pytest.raises(DataError, match="3 processes cannot share class_batch 4 evenly; add --set class_batch=6"):
        check_shares(settings(batch=6, class_batch=4), 3)


def test_a_process_that_is_killed_in_its_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    group = LocalGroup(0, 2, "cpu")
    lost = r"process 2 of 2 was ended by SIGKILL.*; the same command continues"
    try:
        for job in (killed, whole_of_each):
            with pytest.raises(RunError, match=lost):
                group.run(job)
    finally:
        group.close(2)
    assert not torch.distributed.is_initialized()
