"""Folder runs on a Ray cluster: the same results as on one machine, whatever is lost or stopped meanwhile."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket, s3_server
from command import Cli, assert_refused
from folders import COMMAND, contents, manifest, needs_posix, rows, write_picture
from pictures import encoded, picture

from alserve import Predictor, __version__
from alserve.errors import AlserveError, DeviceError
from alserve.folder.engines import ray_cluster
from alserve.folder.engines.ray_actor import Actor, Job
from alserve.folder.manifest import MANIFEST
from alserve.folder.planned import PlannedImage
from alserve.folder.run import Options
from alserve.folder.segment import segment
from alserve.folder.shards import merge
from alserve.places.disk import Disk

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'alserve[ray]'"),
    needs_posix,
]

STORE = 80 << 20
"""Bytes of the object store of each machine."""

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def store() -> Iterator[Bucket]:
    """A bucket that all machines of the cluster see."""
    with s3_server() as server:
        yield Bucket(server, "bucket")


@pytest.fixture(scope="module")
def cluster(store: Bucket) -> Iterator[Any]:  # noqa: ARG001  the machines have its address and credentials
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


def test_a_shard_from_and_into_a_store_is_that_of_the_local_engine(cluster: Any, run: Run, store: Bucket) -> None:
    drawn = [encoded(picture(60, 80, seed)) for seed in range(8)]
    for index in range(40):
        store[f"in/{index:04}.png"] = drawn[index % 8]
    store["in/damaged.png"] = drawn[0][:300]
    words = [f"{store.url}/in", "--save", "mask,polygons", "--out"]
    spread = [f"{store.url}/spread", "--shard"]
    on_cluster = ["--engine", "ray", "--address", cluster.address]

    runs = [run(*words, f"{store.url}/local"), run(*words, *spread, "1/2", *on_cluster), run(*words, *spread, "2/2")]
    said = [process.communicate(timeout=200) for process in runs]
    assert {process.returncode for process in runs} <= {0, 1}, said
    assert "hunter2" not in str(said)
    assert merge([f"{store.url}/spread"])[1:] == (41, 1)

    found = store.below("spread")
    assert {name: data for name, data in found.items() if "-of-" not in name} == store.below("local")


def test_lost_machines_lose_and_double_nothing_and_others_may_join(cluster: Any, run: Run, tmp_path: Path) -> None:
    draw(tmp_path / "in", 200)
    process = run("in", "--out", "out", "--save", "mask", "--engine", "ray", "--address", cluster.address)
    wait_for_rows(tmp_path / "out", 30, process)

    while cluster.machines:
        cluster.remove_node(cluster.machines.pop(), allow_graceful=False)
    cluster.machines = [cluster.add_node(num_cpus=1, object_store_memory=STORE)]

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


def test_a_cluster_with_other_software_is_one_line(
    cluster: Any, tree: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray  # noqa: PLC0415

    options = {"model": predictor, "out": tmp_path / "out", "engine": "ray", "address": cluster.address}
    with monkeypatch.context() as patch:
        patch.setattr(ray_cluster, "__version__", "0.1")
        with pytest.raises(DeviceError, match=f"has alserve {__version__}, this one alserve 0.1; install the same"):
            segment(tree, **options)
    monkeypatch.setattr(ray, "__version__", "2.1.0")
    with pytest.raises(DeviceError, match=r"Version mismatch: .* Ray: 2\.1\.0 Python: \S+; install the same"):
        segment(tree, **options)
    assert not ray.is_initialized()


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
    out, cwd, sha256, check = Disk(tmp_path / "out"), str(Path.cwd()), predictor.engine.sha256, True
    job = Job(__version__, "m.onnx", sha256, "cpu", 1, 60, check, Options(("mask",)), cwd, out, ".token", b"x", None)
    _assert_ends_run(replace(job, version="0.1"), f"alserve {__version__} is installed, 0.1 where the run was started")
    _assert_ends_run(job, "give an --out that all machines of the cluster share")
    out.write(".token", b"x")
    image, gone = (PlannedImage(Disk(tree), name, name, out, ("mask",)) for name in ("b.png", "gone.png"))
    seen = image.look()
    assert seen
    (tmp_path / "out" / "folder").mkdir()
    _assert_ends_run(replace(job, token="folder"), "out/folder: cannot be read here: it is a folder")  # noqa: S106
    changed = [(gone, seen), (image, seen._replace(bytes=seen.bytes + 1))]
    for witness in changed:
        _assert_ends_run(replace(job, witness=witness), "where all machines of the cluster see them")


def _assert_ends_run(job: Job, words: str) -> None:
    found = Actor(job, b"").do([])
    assert isinstance(found, AlserveError)
    assert words in str(found)
