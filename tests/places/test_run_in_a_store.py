"""A training run that is kept in an object store: it goes on wherever the same command is given."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket, FaultyWay, on_disk
from command import Cli, assert_refused
from drawn import SMALL, settings

from alserve.errors import RunError
from alserve.files import write_atomic
from alserve.places import client
from training.data.synthetic import draw_dataset
from training.run.result import RunResult
from training.run.stored import folder_of, kept_run
from training.train import train_run

SETTINGS = settings(SMALL, passes=1, encoder="mobilenetv3_small_050", pretrained=False)
RESULTS = ("config.json", "rounds.jsonl", "model.onnx", "state/theta0.safetensors", "state/latest.safetensors")

PROGRAM = """
import sys
from training.train import train_run
from training.settings import Settings
train_run(sys.argv[1], sys.argv[2], Settings.model_validate_json(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("data"), seed=1, train_per_class=4, test_per_class=1, size=(96, 128))


@pytest.fixture(scope="module")
def undisturbed(table: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The same run on the disk."""
    return train_run(table, tmp_path_factory.mktemp("runs") / "whole", SETTINGS)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go to a machine, by its name: each has a disk of its own."""

    def go(name: str) -> Path:
        monkeypatch.setenv("ALSERVE_CACHE", str(tmp_path / name))
        return tmp_path / name

    go("first")
    return go


def assert_same(found: Mapping[str, bytes], run: RunResult) -> None:
    wanted = on_disk(run.folder)
    for name in RESULTS:
        assert found[name] == wanted[name], name


def test_a_run_in_a_store_is_that_on_the_disk(
    table: Path, bucket: Bucket, undisturbed: RunResult, machine: Callable[[str], Path], faulty: FaultyWay
) -> None:
    out = f"{bucket.url}/runs/x"
    result = train_run(table, out, SETTINGS)
    assert result.folder == folder_of(out) == machine("first") / "runs" / bucket.url.replace("://", "/") / "runs" / "x"
    assert_same(bucket.below("runs/x"), undisturbed)
    assert bucket.below("runs/x") == on_disk(result.folder)
    assert set(bucket.below("runs/x")) == set(on_disk(undisturbed.folder))
    assert f"{out}/model.onnx" in bucket["runs/x/report.html"].decode()
    assert all(key.startswith("runs/x/") for key in bucket), "no lock is left"
    before = faulty.asked["GET"]
    again = train_run(table, out, SETTINGS)
    assert again.rounds == result.rounds
    assert faulty.asked["GET"] - before == 2, "a listing for the check of the store, and one of what is there"
    machine("second")
    assert train_run(table, out, SETTINGS).rounds == result.rounds
    assert on_disk(folder_of(out)).keys() == on_disk(result.folder).keys()


def kill_when(there: Callable[[], bool], words: list[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not there():
            time.sleep(0.1)
        process.kill()
    assert process.returncode == -9


def test_a_run_whose_machine_is_lost_again_and_again_ends_as_an_undisturbed_one(
    table: Path, bucket: Bucket, undisturbed: RunResult, machine: Callable[[str], Path], tmp_path: Path
) -> None:
    out = f"{bucket.url}/x"
    words = [str(table), out, SETTINGS.model_dump_json()]

    def rounds() -> int:
        return bucket["x/rounds.jsonl"].count(b"\n") if "x/rounds.jsonl" in list(bucket) else 0

    kill_when(lambda: "x/state/theta0.safetensors" in list(bucket), words)
    machine("second")
    kill_when(lambda: "x/state/latest.safetensors" in list(bucket), words)
    first = json.loads(bucket["x/config.json"])
    machine("third")
    kill_when(lambda: rounds() == 1, words)
    assert rounds() == 1
    assert "x/model.onnx" in list(bucket)
    machine("fourth")
    moved = tmp_path / "moved"
    moved.mkdir()
    for name, data in on_disk(table.parent).items():
        (moved / name).parent.mkdir(parents=True, exist_ok=True)
        (moved / name).write_bytes(data)
    result = train_run(moved / table.name, out, SETTINGS)
    assert len(result.rounds) == 2
    assert json.loads(bucket["x/config.json"]) == {**first, "source": str(moved / table.name)}
    bucket["x/config.json"] = (undisturbed.folder / "config.json").read_bytes()
    assert_same(bucket.below("x"), undisturbed)


def test_what_was_not_copied_is_forgotten(
    table: Path, bucket: Bucket, undisturbed: RunResult, machine: Callable[[str], Path]
) -> None:
    out, kept = f"{bucket.url}/x", dict[str, bytes]()

    def keep(_: Any) -> None:
        kept.update(kept or bucket.below("x"))

    result = train_run(table, out, SETTINGS, progress=keep)
    assert machine("first") in result.folder.parents
    for name in list(bucket):  # as if the store had been away after the first round
        del bucket[name]
    for name, data in kept.items():
        bucket[f"x/{name}"] = data
    (result.folder / "notes.txt").write_text("mine")
    again = train_run(table, out, SETTINGS)
    assert again.rounds == undisturbed.rounds
    assert_same(bucket.below("x"), undisturbed)
    assert "x/notes.txt" not in list(bucket)


def test_a_run_is_replaced_only_where_that_is_asked_for(
    table: Path, bucket: Bucket, machine: Callable[[str], Path]
) -> None:
    out, one, other = f"{bucket.url}/x", *(SETTINGS.model_copy(update={"rounds": 1, "seed": seed}) for seed in (0, 1))
    train_run(table, out, one)
    bucket["x/notes/mine.txt"] = b"mine"
    before = bucket.below("x")
    machine("second")
    with pytest.raises(RunError, match="this run has other settings"):
        train_run(table, out, other)
    assert bucket.below("x") == before
    result = train_run(table, out, other, overwrite=True)
    after = bucket.below("x")
    assert after.pop("notes/mine.txt") == b"mine"
    assert after == on_disk(result.folder)
    assert after["state/theta0.safetensors"] != before["state/theta0.safetensors"]
    del bucket["x/config.json"]
    with pytest.raises(RunError, match=f"{out}: is not empty and holds no run; name another --out"):
        train_run(table, out, other)


def test_a_run_that_is_half_replaced_mixes_no_states(
    bucket: Bucket, faulty: FaultyWay, machine: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENT", {**client.PATIENT, "max_retries": 0})
    out, names = (
        f"{bucket.url}/x",
        ("config.json", "model.onnx", "state/theta0.safetensors", "state/latest.safetensors"),
    )
    machine("first")
    for requests in range(20):
        for name in names:
            bucket[f"x/{name}"] = b"old"
        with suppress(RunError), kept_run(out, overwrite=True) as save:
            for name in names[:3]:
                write_atomic(folder_of(out) / name, b"new")
            faulty.gone_after = faulty.asked.total() + requests
            save()
        faulty.gone_after = None
        found = bucket.below("x")
        assert {*found.values()} in ({b"old"}, {b"new"}, set()), f"{found} after {requests} requests"
        assert "config.json" in found or not found
    assert found == dict.fromkeys(names[:3], b"new")


def test_a_store_that_goes_away_ends_a_run_with_one_line(
    table: Path, bucket: Bucket, faulty: FaultyWay, undisturbed: RunResult, machine: Callable[[str], Path]
) -> None:
    out = f"{bucket.url}/x"

    def refuse(_: Any) -> None:
        faulty.refuse = {"PUT"}

    with pytest.raises(
        RunError, match=r"x/.*: the run cannot be saved: permission denied by the store .* goes on from"
    ):
        train_run(table, out, SETTINGS, progress=refuse)
    faulty.refuse = set()
    machine("second")
    train_run(table, out, SETTINGS)
    assert_same(bucket.below("x"), undisturbed)


def test_what_a_run_in_a_store_cannot_have(table: Path, cli: Cli, bucket: Bucket, tmp_path: Path) -> None:
    words = ("train", table, "--out", f"{bucket.url}/x")
    assert_refused(cli(*words, "--oracle", "browser"), "--oracle browser keeps drawn masks in --out: give a folder on")
    assert_refused(cli(*words, "--nodes", 2), "--nodes 2: all machines read --out: give a folder that they share")
    assert_refused(cli("train", table, "--out", bucket.url), f"{bucket.url}: is a whole bucket; name a folder in it")
    assert_refused(cli("train", table, "--out", f"{bucket.url}/a\\b"), "has a backslash")
    assert_refused(
        cli("train", table, "--out", "s3://no-bucket-here/x", "--initial", 1, "--rounds", 1), "no such bucket"
    )
    assert not list(bucket)
    assert list(tmp_path.iterdir()) == []
