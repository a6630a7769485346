"""Runs that are stopped or killed, that run out of disk, or meet another run: nothing is lost or torn."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Cli
from folders import COMMAND, HEIC, contents, files, in_process, manifest, needs_posix, rows, write_picture
from pictures import encoded, picture

from alserve.files import write_atomic
from alserve.folder.manifest import MANIFEST
from alserve.folder.planned import LEFT_OUT


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run over many images that has begun to write to out/."""
    first = write_picture(tmp_path / "many" / "000.png")
    for index in range(1, 3000):
        os.link(first, tmp_path / "many" / f"{index:04}.png")
    command = [*COMMAND, "many", "--out", "out", "--save", "mask", "--threads", "1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (tmp_path / "out" / "masks").exists():
            time.sleep(0.02)
        yield process
        process.kill()


def test_a_killed_run_continues_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    for index in range(60):
        write_picture(tmp_path / "in" / f"{index:03}.png", 200, 300, index)
    command = [sys.executable, "-m", "alserve", "segment", "in", "--save", "mask,cam", "--out"]
    subprocess.run([*command, "whole"], cwd=tmp_path, check=True)
    done = tmp_path / "cut" / MANIFEST
    for count in (3, 20):
        with subprocess.Popen([*command, "cut"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not done.exists() or done.read_bytes().count(b"\n") < count):
                time.sleep(0.01)
            process.kill()
        assert process.returncode == -signal.SIGKILL
    with done.open("ab") as file:
        file.write(b'{"path": "in/0')  # what a full disk or a lost machine leaves of a line
    last = subprocess.run([*command, "cut"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "were done already" in last.stdout
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_what_it_did(tmp_path: Path, number: int) -> None:
    first = write_picture(tmp_path / "in" / "000.png", 200, 300)
    for index in range(1, 1000):
        first.with_stem(f"{index:03}").hardlink_to(first)
    command = [sys.executable, "-m", "alserve", "segment", "in", "--out", "out", "--save", "mask"]
    masks = tmp_path / "out" / "masks"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and len(list(masks.glob("*.png"))) < 3:
            time.sleep(0.02)
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    rows = manifest(tmp_path / "out")
    assert 3 <= len(rows) < 1000
    assert {row["status"] for row in rows} == {"ok"}
    assert files(masks) == {Path(row["path"]).name for row in rows}
    assert f"interrupted after {len(rows)} of 1000 images" in said


@needs_posix
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png", 300, 400)
    command = f"ulimit -f 1; exec {sys.executable} -m alserve segment in --out out --save overlay"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be written: File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert files(tmp_path / "out") <= {MANIFEST}


@needs_posix
@pytest.mark.parametrize("name", [MANIFEST, LEFT_OUT, "masks/large.png"])
def test_a_full_disk_names_the_file(tmp_path: Path, name: str) -> None:
    for index in range(10):
        write_picture(tmp_path / "in" / f"{index}.png")
    if name == LEFT_OUT:
        for index in range(10):
            write_atomic(tmp_path / "in" / f"{'x' * 200}{index}.heic", HEIC)
    if name == "masks/large.png":
        write_atomic(tmp_path / "in" / "large.png", encoded(picture(2000, 2000)))
    limit = 1 if name != "masks/large.png" else 8  # files of more kB cannot be written
    script = f"ulimit -f {limit}; exec {sys.executable} -m alserve segment in --out out --save mask"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"alserve: out/{name}: cannot be written: ")
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").rglob(".*")) == []
    again = in_process("in", "--out", "out", "--save", "mask", cwd=tmp_path)
    assert again.returncode == 0


def test_a_second_run_into_the_same_folder_is_refused(cli: Cli, tmp_path: Path, running: subprocess.Popen[str]) -> None:
    other = write_picture(tmp_path / "other" / "a.png")
    for extra in ((), ("--overwrite",)):
        refused = cli("segment", other, "--out", tmp_path / "out", "--save", "mask", *extra)
        assert running.poll() is None, "the run was over too soon for this test"
        code, out, err = refused
        assert (code, out) == (2, "")
        assert "another process is writing to it; wait for that, or use another folder" in err.splitlines()[-1]
    running.kill()
    running.wait()
    done = rows(tmp_path / "out" / MANIFEST)
    assert {row["status"] for row in done} == {"ok"}  # no torn line
    assert cli("segment", other, "--out", tmp_path / "out", "--save", "mask")[0] == 0  # who died holds no lock
    assert len(rows(tmp_path / "out" / MANIFEST)) == len(done) + 1
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []
