"""Folder runs on a Ray cluster: the same results as on one machine, whatever is lost or stopped meanwhile."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command import Cli, assert_refused
from folders import COMMAND, contents, manifest, needs_posix, rows, write_picture

from alserve import Predictor
from alserve.errors import DeviceError, RunError
from alserve.folder.engines import ray_cluster
from alserve.folder.engines.ray_actor import BATCHES, ROWS, Actor, Job, load_row
from alserve.folder.manifest import MANIFEST
from alserve.folder.planned import PlannedImage
from alserve.folder.run import Options
from alserve.folder.segment import segment
from alserve.places.disk import Disk

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'alserve[ray]'"),
    needs_posix,
]

STORE = 80 << 20
"""Bytes of the object store of each machine."""

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of a head, on which nothing runs, and two machines of one core; all of them processes of this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        from ray.cluster_utils import Cluster  # noqa: PLC0415

        started = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})  # noqa: FBT003
        try:
            started.machines = [started.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
            yield started
        finally:
            started.shutdown()


@pytest.fixture
def run(tmp_path: Path, predictor: Predictor) -> Iterator[Run]:
    """Start a folder run in a process of its own, in the folder of the test."""
    environment = {**os.environ, "ALSERVE_MODEL": str(predictor.engine.path.absolute())}
    started: list[subprocess.Popen[str]] = []

    def start(*words: object) -> subprocess.Popen[str]:
        command = [*COMMAND, *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes)  # type: ignore[call-overload]
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def draw(folder: Path, images: int, height: int = 200, width: int = 300) -> Path:
    """A folder of pictures, a few of them under many names."""
    for index in range(images):
        path = folder / f"{index:04}.png"
        if index < 8:
            write_picture(path, height, width, index)
        else:
            path.hardlink_to(folder / f"{index % 8:04}.png")
    return folder


def wait_for_rows(out: Path, count: int, process: "subprocess.Popen[str]") -> None:
    while process.poll() is None and (not (out / MANIFEST).exists() or len(rows(out / MANIFEST)) < count):
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()


def test_results_are_those_of_the_local_engine(cluster: Any, run: Run, tree: Path, tmp_path: Path) -> None:
    draw(tree / "more", 20)
    (tree / "damaged.png").write_bytes((tree / "b.png").read_bytes()[:300])
    (tree / "more" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    options = ["--save", "mask,cam,overlay,objects", "--tile", "64", "--min-area", "9"]

    local = run("in", "--out", "local", *options)
    spread = run("in", "--out", "spread", *options, "--engine", "ray", "--address", cluster.address)

    said = [process.communicate(timeout=100) for process in (local, spread)]
    assert [local.returncode, spread.returncode] == [1, 1], said
    assert "in spread" in said[1][0], said[1][1]
    assert "2 at once on 2 machines" in said[1][1]
    assert all(line.startswith("alserve: ") for line in said[1][1].splitlines()), said[1][1]
    assert contents(tmp_path / "spread") == contents(tmp_path / "local")


def test_a_lost_machine_loses_and_doubles_nothing(cluster: Any, run: Run, tmp_path: Path) -> None:
    draw(tmp_path / "in", 200)
    process = run("in", "--out", "out", "--save", "mask", "--engine", "ray", "--address", cluster.address)
    wait_for_rows(tmp_path / "out", 30, process)

    cluster.remove_node(cluster.machines.pop(), allow_graceful=False)

    said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert all(line.startswith("alserve: ") for line in said[1].splitlines()), said[1]
    names = [row["name"] for row in manifest(tmp_path / "out")]
    assert names == sorted(path.name for path in (tmp_path / "in").iterdir())
    assert "200 images," in said[0]


def test_a_stopped_and_a_killed_run_continue_on_either_engine(run: Run, tmp_path: Path) -> None:
    draw(tmp_path / "in", 200)
    words = ["in", "--save", "mask", "--out"]
    for number, code, count in ((signal.SIGINT, 130, 10), (signal.SIGKILL, -signal.SIGKILL, 60)):
        process = run(*words, "out", "--engine", "ray")
        wait_for_rows(tmp_path / "out", count, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "starting Ray on this machine" in err
        assert all(line.startswith("alserve: ") for line in err.splitlines()), err
        assert ("interrupted after" in out) == (number == signal.SIGINT)
    done = len({row["name"] for row in manifest(tmp_path / "out")})
    assert 60 <= done < 200

    last, whole = run(*words, "out"), run(*words, "whole")

    assert f"({done} were done already)" in last.communicate(timeout=100)[0]
    whole.communicate(timeout=100)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_cluster_without_room_is_one_line(
    cluster: Any, tree: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "WAIT_SECONDS", 2)
    options = {"model": predictor, "out": tmp_path / "out", "engine": "ray", "address": cluster.address}
    with pytest.raises(DeviceError, match=r"no machine had 64 cores free within 2 s \(in all: .* 0 GPUs"):
        segment(tree, threads=64, **options)
    with pytest.raises(DeviceError, match="no machine had 1 core and a GPU free"):
        segment(tree, device="cuda", **options)
    with pytest.raises(DeviceError, match="Ray picks the GPU: give cuda"):
        segment(tree, device="cuda:1", **options)


def test_a_cluster_that_is_not_there_is_one_line(run: Run, tree: Path) -> None:
    started = time.monotonic()
    process = run(tree, "--out", "out", "--engine", "ray", "--address", "127.0.0.1:1")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == (
        "alserve: the Ray cluster at 127.0.0.1:1: cannot be reached: Connection refused; give HOST:PORT of its head\n"
    )
    assert time.monotonic() - started < 60


def test_wrong_options_are_refused(cli: Cli, tree: Path, tmp_path: Path) -> None:
    command = ["segment", tree, "--out", tmp_path / "out"]
    assert_refused(cli(*command, "--engine", "rai"), "unknown engine 'rai'", "did you mean ray?")
    assert_refused(cli(*command, "--address", "auto"), "--address is of a cluster; give --engine ray too")
    assert_refused(cli(*command, "--engine", "ray", "--address", "ray://a:10001"), "HOST:6379 or auto")


def test_an_actor_that_sees_other_files_says_so(tree: Path, tmp_path: Path, predictor: Predictor) -> None:
    out, options, cwd = Disk(tmp_path / "out"), Options(("mask",)), str(Path.cwd())
    job = Job("m.onnx", predictor.engine.sha256, "cpu", 1, 60, True, options, cwd, out, ".token", b"x", None)  # noqa: FBT003
    _assert_ends_run(job, "give an --out that all machines of the cluster share")
    out.write(".token", b"x")
    image, gone = (PlannedImage(Disk(tree), name, name, out, ("mask",)) for name in ("b.png", "gone.png"))
    seen = image.look()
    assert seen
    changed = [(gone, seen), (image, seen._replace(bytes=seen.bytes + 1))]
    for witness in changed:
        _assert_ends_run(Job(**{**vars(job), "witness": witness}), "where all machines of the cluster see them")


def _assert_ends_run(job: Job, words: str) -> None:
    import numpy as np  # noqa: PLC0415

    (row,) = Actor(job, None)({BATCHES: np.array([b""], object)})[ROWS]
    with pytest.raises(RunError, match=words):
        load_row(row)
