"""Runs in shards: each image is in one, they work side by side, and their manifests merge or are refused."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import Cli, assert_refused
from folders import COMMAND, needs_posix, rows, write_picture

from alserve.files import write_atomic
from alserve.folder.manifest import MANIFEST
from alserve.folder.plan import plan
from alserve.folder.shards import Shard


@pytest.fixture
def shards(cli: Cli, tmp_path: Path) -> Path:
    """The results of a run in two shards."""
    for index in range(6):
        write_picture(tmp_path / "in" / f"{index}.png", seed=index)
    for shard in ("1/2", "2/2"):
        assert cli("segment", tmp_path / "in", "--out", tmp_path / "out", "--save", "mask", "--shard", shard)[0] == 0
    return tmp_path / "out"


def first_lines(path: Path, count: int) -> bytes:
    return b"".join(path.read_bytes().splitlines(keepends=True)[:count])


def test_every_image_is_in_one_shard_whatever_others_there_are(tmp_path: Path) -> None:
    for index in range(40):
        write_picture(tmp_path / "in" / f"{index}.png")
    shards = [Shard(index, 3) for index in (1, 2, 3)]

    def parts() -> list[set[str]]:
        plans = [plan([tmp_path / "in"], tmp_path / "out", save=("mask",), shard=shard) for shard in shards]
        return [{image.name for image in part.images} for part in plans]

    before = parts()
    assert sum(map(len, before)) == len(set.union(*before)) == 40
    assert min(map(len, before)) > 5
    (tmp_path / "in" / "7.png").unlink()
    assert parts() == [part - {"7.png"} for part in before]


def test_shards_of_one_run_work_side_by_side_and_merge(cli: Cli, tmp_path: Path) -> None:
    for index in range(12):
        write_picture(tmp_path / "in" / f"{index}.png", seed=index)
    command = [*COMMAND, "in", "--out", "out", "--save", "mask", "--shard"]
    both = [subprocess.Popen([*command, f"{index}/2"], cwd=tmp_path, stdout=subprocess.DEVNULL) for index in (1, 2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    code, said, _ = cli("merge", tmp_path / "out")
    assert (code, said.split(",")[0]) == (0, "12 images")
    assert len(rows(tmp_path / "out" / MANIFEST)) == 12
    assert all("finished" not in row for row in rows(tmp_path / "out" / MANIFEST))


@needs_posix
def test_a_shard_that_was_interrupted_is_not_merged(cli: Cli, tmp_path: Path) -> None:
    first = write_picture(tmp_path / "in" / "000.png")
    for index in range(1, 2000):
        os.link(first, tmp_path / "in" / f"{index:04}.png")
    command = [*COMMAND, "in", "--out", "out", "--save", "mask", "--shard", "1/2"]
    masks = tmp_path / "out" / "masks"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(masks.glob("*.png"))) < 3:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    write_atomic(tmp_path / "out" / "predictions.2-of-2.jsonl", b"")
    assert_refused(cli("merge", tmp_path / "out"), "predictions.1-of-2.jsonl: not finished")


def test_merge_refuses_what_is_not_finished(cli: Cli, shards: Path) -> None:
    path = shards / "predictions.2-of-2.jsonl"
    whole = path.read_bytes()
    count = whole.count(b"\n") - 1
    assert count >= 2
    for data, has in (
        (b"", 0),
        (first_lines(path, count), count),
        (whole[:-1], count),
        (first_lines(path, 1) + b"{", 1),
    ):
        path.write_bytes(data)
        assert_refused(cli("merge", shards), path.name, f"not finished, or being written: {has} images", "of 6 in all")
        assert not (shards / MANIFEST).exists()
    code, _, _ = cli("segment", shards.parent / "in", "--out", shards, "--save", "mask", "--shard", "2/2")
    assert code == 0
    assert cli("merge", shards)[:2] == (0, f"6 images, in {shards / MANIFEST}\n")


def test_merge_refuses_torn_and_foreign_shards(cli: Cli, shards: Path) -> None:
    one, two = (shards / f"predictions.{index}-of-2.jsonl" for index in (1, 2))
    whole = two.read_bytes()
    lines = whole.splitlines(keepends=True)
    two.write_bytes(b"".join(lines[1:]))  # a row was lost from the middle
    assert_refused(cli("merge", shards), two.name, f"holds {len(lines) - 2} of {len(lines) - 1} images")
    two.write_bytes(one.read_bytes())  # the same shard under another name
    assert_refused(cli("merge", shards), two.name, "is the manifest of shard 1/2")
    foreign = first_lines(one, 1) + b"".join(lines[1:])
    two.write_bytes(foreign)
    assert_refused(cli("merge", shards), two.name, "which is not of shard 2/2")
    two.write_bytes(b"".join([*lines[:-1], lines[-1], lines[0]]))  # rows after the end
    assert_refused(cli("merge", shards), two.name, "is no row of a manifest")
    two.unlink()
    assert_refused(cli("merge", shards), "shard 2/2 is missing")
    two.mkdir()
    assert_refused(cli("merge", shards), two.name, "is a folder")
    two.rmdir()
    two.write_bytes(whole)
    for name in ("9-of-2", "0-of-0", "x-of-y", "1-of-99999999"):
        stray = shards / f"predictions.{name}.jsonl"
        stray.write_bytes(whole)
        assert_refused(cli("merge", shards), stray.name, "there is no such shard")
        stray.unlink()
    (shards / "predictions.1-of-900000.jsonl").write_bytes(whole)
    assert_refused(cli("merge", shards), "shards of different runs")
    one.unlink()
    two.unlink()
    assert_refused(cli("merge", shards), "2/900000", "and 899994 more")
    assert not (shards / MANIFEST).exists()


def test_merge_refuses_shards_that_saw_different_images(cli: Cli, shards: Path, tmp_path: Path) -> None:
    names = (f"new{index}.png" for index in range(100))
    new = next(name for name in names if Shard(1, 2).takes(name))
    write_picture(tmp_path / "in" / new)
    command = ("segment", tmp_path / "in", "--out", shards, "--save", "mask", "--shard")
    cli(*command, "1/2")
    assert_refused(cli("merge", shards), "saw different images (7 by shard 1/2, 6 by shard 2/2)")
    assert "done already" in cli(*command, "2/2")[1]
    assert cli("merge", shards)[0] == 0
    (tmp_path / "in" / new).unlink()  # what was made of an image that has gone stays
    cli(*command, "1/2")
    cli(*command, "2/2")
    assert cli("merge", shards)[1].startswith("7 images, ")


def test_an_empty_shard_merges(cli: Cli, tmp_path: Path) -> None:
    source, out = write_picture(tmp_path / "a.png"), tmp_path / "out"
    for index in (1, 2, 3):
        assert cli("segment", source, "--out", out, "--save", "mask", "--shard", f"{index}/3")[0] == 0
    assert cli("merge", out)[:2] == (0, f"1 images, in {out / MANIFEST}\n")


def test_merge_writes_over_nothing_but_a_manifest(cli: Cli, shards: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine\n")
    assert_refused(cli("merge", shards, "--out", notes), "notes.txt", "is no row of a manifest")
    assert_refused(cli("merge", shards, "--out", tmp_path), str(tmp_path), "is a folder")
    assert notes.read_text() == "mine\n"
    assert_refused(cli("merge", tmp_path / "none"), "no manifests of shards")
