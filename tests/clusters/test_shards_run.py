"""What is printed for schedulers does its work: each part is run as its scheduler would, and all agree with one run."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from folders import contents, manifest, needs_posix, write_picture
from schedulers import PROGRAMS, container_of, documents, run, run_container

from alserve.clusters.job import read_job
from alserve.clusters.render import render
from alserve.modelfile import default_model

pytestmark = needs_posix

SHARDS = 2
PICTURES = "pic tures/$(touch x)/'\"\n"
OUT = "out `id` 'q' $$"
OPTIONS = ("--save", "mask", "--fill-holes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, one of them damaged, in a folder with a name that needs care."""
    folder = tmp_path_factory.mktemp("cluster")
    for seed in range(4):
        write_picture(folder / PICTURES / f"{seed}.png", seed=seed)
    (folder / PICTURES / "bad.png").write_bytes(b"hello")
    return folder


@pytest.fixture(scope="module")
def alserve() -> dict[str, str]:
    """The environment of a node, where the demo model is the packed one."""
    return {"ALSERVE_MODEL": str(default_model().absolute())}


@pytest.fixture(scope="module")
def whole(folder: Path, alserve: dict[str, str]) -> Path:
    """The results of one run without shards."""
    done = run(["alserve", "segment", *OPTIONS, "--out", "whole", "--", folder / PICTURES], folder, **alserve)
    assert done.returncode == 1, done.stderr  # the damaged one
    return folder / "whole"


def values(folder: Path, kind: str, out: str) -> dict[str, Any]:
    """What the job is printed from."""
    more = {"image": "tissue:1", "volume": [f"data:{folder}"]} if kind == "k8s" else {}
    paths = {"input": [f"{folder / PICTURES}"], "out": f"{folder / out}"}
    return {"kind": kind, "shards": SHARDS, "options": OPTIONS, **paths, **more}


def assert_same(found: Path, whole: Path) -> None:
    assert contents(found / "masks") == contents(whole / "masks") != {}
    names = [{"name": row["name"], "status": row["status"]} for row in manifest(found)]
    assert names == [{"name": row["name"], "status": row["status"]} for row in manifest(whole)]
    assert (found / "summary.csv").read_bytes() == (whole / "summary.csv").read_bytes()


def test_the_pods_of_kubernetes(folder: Path, whole: Path, alserve: dict[str, str]) -> None:
    out = f"k8s {OUT}"
    shards, merge = documents(render(read_job(**values(folder, "k8s", out))))
    early = run_container(container_of(merge), folder, **alserve)
    assert early.returncode == 2, early.stderr
    codes = []
    for index in range(shards["spec"]["completions"]):
        done = run_container(container_of(shards), folder, JOB_COMPLETION_INDEX=str(index), **alserve)
        codes.append(done.returncode)
    assert sorted(codes) == [0, 1], done.stderr  # 1: the shard with the damaged picture, which is not tried again
    done = run_container(container_of(merge), folder, **alserve)
    assert (done.returncode, done.stdout.split(b",")[:2]) == (1, [b"5 images", b" 1 failed"])
    assert_same(folder / out, whole)


@pytest.fixture
def slurm(folder: Path, alserve: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of the first task of an array; what is asked of Slurm is written to `folder`/asked."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "scontrol").write_text('#!/bin/sh\necho "$@" >> asked\n')
    (folder / "bin" / "scontrol").chmod(0o755)
    task = {"SLURM_ARRAY_JOB_ID": "71", "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "1"}
    yield {**alserve, **task, "PATH": f"{folder / 'bin'}:{PROGRAMS['PATH']}"}
    (folder / "asked").unlink(missing_ok=True)


def test_the_tasks_of_slurm(folder: Path, whole: Path, slurm: dict[str, str]) -> None:
    out = f"slurm {OUT}"
    (folder / "FILE").write_text(render(read_job(**values(folder, "slurm", out))))
    tasks = [run(["bash", "FILE"], folder, **slurm | {"SLURM_ARRAY_TASK_ID": task}) for task in ("1", "2")]
    assert sorted(task.returncode for task in tasks) == [0, 1], tasks
    assert run(["bash", "FILE", "merge"], folder, **slurm).returncode == 1
    assert_same(folder / out, whole)
    assert not (folder / "asked").exists()


def test_before_its_time_is_over_a_task_stops_and_is_queued_again(folder: Path, slurm: dict[str, str]) -> None:
    first = write_picture(folder / "many" / "000.png")
    for index in range(1, 2000):
        os.link(first, folder / "many" / f"{index:04}.png")
    job = read_job(kind="slurm", shards=1, input=["many"], out="stopped", options=("--save", "mask"))
    (folder / "FILE").write_text(render(job))
    masks = folder / "stopped" / "masks"
    with subprocess.Popen(["bash", "FILE"], cwd=folder, env={**os.environ, **slurm}) as task:
        while task.poll() is None and len(list(masks.glob("*.png"))) < 3:
            time.sleep(0.02)
        task.send_signal(signal.SIGUSR1)
    assert task.returncode == 130
    assert (folder / "asked").read_text() == "requeue 71_1\n"
    assert 3 <= len(manifest(folder / "stopped")) < 2000


def test_a_task_that_is_done_by_then_is_not_queued_again(folder: Path, slurm: dict[str, str], tmp_path: Path) -> None:
    """`alserve` is a program here that had only the last image to do when it was told to stop."""
    (tmp_path / "alserve").write_text("#!/bin/bash\ntrap 'sleep 0.3; exit 0' TERM\ntouch up\nsleep 60 & wait\n")
    (tmp_path / "alserve").chmod(0o755)
    (folder / "FILE").write_text(render(read_job(**values(folder, "slurm", "never"))))
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{slurm['PATH']}"}
    with subprocess.Popen(["bash", "FILE"], cwd=folder, env=environment) as task:
        while task.poll() is None and not (folder / "up").exists():
            time.sleep(0.02)
        task.send_signal(signal.SIGUSR1)
    assert task.returncode == 0
    assert not (folder / "asked").exists()
