"""Folder runs among odd files, torn manifests and other runs: one line, an exit code, nothing lost and no hang."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Cli, assert_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import encoded, picture

from alserve import Predictor
from alserve.files import write_atomic
from alserve.folder.manifest import MANIFEST
from alserve.folder.plan import LEFT_OUT, find_clashes, fold_name, plan
from alserve.folder.shards import Shard
from alserve.images.decoders import Decoders
from alserve.images.header import FORMATS, SUFFIXES
from alserve.images.kinds import kind_of_file

COMMAND = [sys.executable, "-m", "alserve", "segment"]
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"

needs_posix = pytest.mark.skipif(os.name == "nt", reason="no such files on Windows")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], predictor: Predictor) -> Cli:
    monkeypatch.setenv("ALSERVE_MODEL", str(predictor.engine.path.absolute()))
    return Cli(monkeypatch, capsys)


def write_picture(path: Path, kind: str = "PNG", seed: int = 0) -> Path:
    write_atomic(path, encoded(picture(40, 56, seed), kind))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def reasons(out: Path) -> dict[str, str]:
    return {Path(row["path"]).name: row["reason"] for row in rows(out / LEFT_OUT)}


def in_process(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


# What is left out


def test_images_that_are_not_read_are_named_and_listed(cli: Cli, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_picture(folder / "a.png")
    for name in ("b.heic", "sub/c.HEIC", "no suffix"):
        write_atomic(folder / name, HEIC)
    write_atomic(folder / "scan.dcm", bytes(128) + b"DICM")
    write_picture(folder / "slide.svs", "TIFF")
    write_picture(folder / "photo.nef", "TIFF")
    write_picture(folder / "map.gtiff", "TIFF")
    for name in ("notes.txt", "data.json", ".hidden.heic"):
        write_atomic(folder / name, b"hello")
    code, said, err = cli("segment", folder, "--out", out, "--save", "mask")
    assert code == 0
    assert "1 image, 7 left out (see left-out.jsonl)" in said
    (line,) = [line for line in err.splitlines() if "left out" in line]
    assert all(
        word in line for word in ("3 HEIC (", "1 DICOM (", "1 slide (", "1 raw photograph (", "foreign suffix (")
    )
    assert reasons(out) == {
        "b.heic": "HEIC",
        "c.HEIC": "HEIC",
        "no suffix": "HEIC",
        "scan.dcm": "DICOM",
        "slide.svs": "slide",
        "photo.nef": "raw photograph",
        "map.gtiff": "TIFF with a foreign suffix",
    }
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "a.png":
            path.unlink()
    code, said, err = cli("segment", folder, "--out", out, "--save", "mask")
    assert code == 0
    assert "left out" not in said + err
    assert not (out / LEFT_OUT).exists()


def test_images_with_odd_suffixes_or_none_are_found_by_their_content(cli: Cli, tmp_path: Path) -> None:
    for name, kind in (("photo", "JPEG"), ("b.jpe", "JPEG"), ("c.jfif", "JPEG"), ("d.img", "PNG"), ("scan", "TIFF")):
        write_picture(tmp_path / "in" / name, kind)
    assert cli("segment", tmp_path / "in", "--out", tmp_path / "out", "--save", "mask")[0] == 0
    assert {row["name"] for row in rows(tmp_path / "out" / MANIFEST)} == {
        "photo.png", "b.png", "c.png", "d.img.png", "scan.png",
    }  # fmt: skip


def test_nothing_but_what_is_left_out_is_no_images(cli: Cli, tmp_path: Path) -> None:
    write_atomic(tmp_path / "in" / "a.heic", HEIC)
    assert_refused(
        cli("segment", tmp_path / "in", "--out", tmp_path / "out"), "no images", "left out: 1 HEIC", "a.heic"
    )
    assert not (tmp_path / "out").exists()


def test_a_file_that_was_named_and_is_left_out_makes_the_exit_code_1(cli: Cli, tmp_path: Path) -> None:
    image = write_picture(tmp_path / "a.png")
    write_atomic(tmp_path / "b.heic", HEIC)
    code, said, _ = cli("segment", image, tmp_path / "b.heic", "--out", tmp_path / "out", "--save", "mask")
    assert code == 1
    assert "1 image, 1 left out" in said


@needs_posix
def test_pipes_sockets_and_devices_never_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
    write_picture(Path("in/seen.png"))
    os.mkfifo("in/pipe.png")
    os.mkfifo("in/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("in/socket.png")
        Path("in/zero.png").symlink_to("/dev/zero")
        Path("in/folder.png").mkdir()
        done = in_process("in", "--out", "out", "--save", "mask", cwd=tmp_path)
        assert (done.returncode, reasons(Path("out"))) == (
            0, {"pipe.png": "pipe", "pipe": "pipe", "socket.png": "socket", "zero.png": "device"},
        )  # fmt: skip
        for name, kind in (("in/pipe.png", "pipe"), ("in/socket.png", "socket"), ("/dev/zero", "device")):
            for words in ((name,), ("in", "--model", name)):
                done = in_process(*words, "--out", "other", cwd=tmp_path)
                assert_refused((done.returncode, done.stdout, done.stderr), name, f"is a {kind}")
    done = in_process("in", "--model", "in", "--out", "other", cwd=tmp_path)
    assert_refused((done.returncode, done.stdout, done.stderr), "in: the model cannot be read: it is a folder")
    assert not Path("other").exists()


@needs_posix
def test_an_image_that_becomes_a_pipe_or_a_folder_fails_alone(tmp_path: Path, predictor: Predictor) -> None:
    from alserve.folder.manifest import Manifest  # noqa: PLC0415
    from alserve.folder.run import Options, run  # noqa: PLC0415

    for name in ("a", "b", "c"):
        write_picture(tmp_path / "in" / f"{name}.png")
    options = Options(("mask",))
    planned = plan([tmp_path / "in"], tmp_path / "out", save=options.save)
    for name, become in (("a", os.mkfifo), ("b", os.mkdir)):
        (tmp_path / "in" / f"{name}.png").unlink()
        become(tmp_path / "in" / f"{name}.png")
    with (
        Decoders(1, 60) as decoders,
        Manifest(tmp_path / "out" / MANIFEST, model=predictor.engine.sha256, options=options.describe()) as manifest,
    ):
        result = run(predictor, decoders, planned, manifest, options, batch_size=3, workers=1)
    assert (result.images, result.failed) == (3, 2)
    errors = {row["name"]: row["error"] for row in rows(tmp_path / "out" / MANIFEST)}
    assert errors == {"a.png": "cannot be read: it is a pipe", "b.png": "cannot be read: it is a folder", "c.png": None}


@needs_posix
def test_broken_links_and_circles(cli: Cli, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png")
    for name in ("gone.png", "gone.txt"):
        (tmp_path / "in" / name).symlink_to("nowhere")
    for name in ("circle.png", "circle"):
        (tmp_path / "in" / name).symlink_to(name)
    code, _, err = cli("segment", tmp_path / "in", "--out", tmp_path / "out", "--save", "mask")
    assert code == 1  # an image that is a broken link is one that cannot be read
    assert reasons(tmp_path / "out") == {"gone.txt": "broken link", "circle": "broken link"}
    failed = {row["name"] for row in rows(tmp_path / "out" / MANIFEST) if row["error"]}
    assert failed == {"gone.png", "circle.png"}
    assert "gone.png" in err
    assert_refused(cli("segment", tmp_path / "in" / "gone.png", "--out", tmp_path / "other"), "no such file")
    assert_refused(cli("segment", tmp_path / "in" / "circle.png", "--out", tmp_path / "other"), "no such file")


@needs_posix
def test_a_tree_deeper_than_python_calls(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path / "in")
    for _ in range(1100):
        Path("d").mkdir()
        os.chdir("d")
    write_picture(Path("b.png"))
    os.chdir(tmp_path)
    try:
        code, _, err = cli("segment", "in", "--out", "out", "--save", "mask")
        assert code == 1
        assert "its folders are too deep" in err
        assert [row["status"] for row in rows(Path("out", MANIFEST))] == ["ok", "error"]
    finally:
        subprocess.run(["rm", "-rf", "in", "out"], check=True)  # Python cannot


@needs_posix
def test_a_folder_that_cannot_be_read_is_named_and_the_exit_code_is_1(cli: Cli, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png")
    write_picture(tmp_path / "in" / "private" / "b.png")
    (tmp_path / "in" / "private").chmod(0)
    if os.access(tmp_path / "in" / "private", os.R_OK):
        pytest.skip("this user may read everything")
    try:
        code, _, err = cli("segment", tmp_path / "in", "--out", tmp_path / "out", "--save", "mask")
        assert code == 1
        assert "private" in err
        assert "cannot be read" in reasons(tmp_path / "out")["private"]
        code, _, err = cli("segment", tmp_path / "in" / "private", "--out", tmp_path / "b")
        assert (code, "private' is not readable" in err) == (2, True)
    finally:
        (tmp_path / "in" / "private").chmod(0o700)


names = st.lists(st.sampled_from(["a", "b", "A", "sub", "é", "e\u0301", ".h"]), min_size=1, max_size=3).map("/".join)
suffixes = st.sampled_from(["", ".png", ".jpg", ".JPG", ".jpe", ".txt", ".heic", ".svs", ".tif", ".png.tif"])
heads = st.sampled_from([b"hello", b"", HEIC, b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"GIF89a"])


@given(files=st.dictionaries(st.tuples(names, suffixes), heads, min_size=1, max_size=8), keep=st.booleans())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_file_is_an_image_or_named_or_hidden_or_no_image(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, str], bytes], *, keep: bool
) -> None:
    top = tmp_path_factory.mktemp("tree")
    for (name, suffix), head in files.items():
        path = top / "in" / f"{name}{suffix}"
        if not any(above.is_file() for above in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(head)
    try:
        planned = plan([top / "in"], top / "out", save=("mask", "cam"), keep_extension=keep)
    except Exception as error:  # noqa: BLE001  only these two are refused, each for its reason
        assert "no images" in str(error) or "would both be written" in str(error)  # noqa: PT017
        return
    images, left = {image.source for image in planned.images}, {item.path for item in planned.left_out}
    targets = [target for image in planned.images for target in image.targets.values()]
    assert len(targets) == len(set(targets)) == 2 * len(images)
    assert not images & left
    for path in (path for path in (top / "in").rglob("*") if path.is_file()):
        hidden = any(part.startswith(".") for part in path.relative_to(top / "in").parts)
        kind = kind_of_file(path, path.read_bytes())
        image = path.suffix.lower() in SUFFIXES or (kind in FORMATS and (kind != "TIFF" or not path.suffix))
        assert (path in images, path in left) == (image and not hidden, bool(kind) and not image and not hidden)


# Names


def test_all_pairs_that_would_share_a_name_are_counted_and_can_be_told_apart(cli: Cli, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for index in range(5):
        write_picture(folder / f"{index}.png")
        write_picture(folder / f"{index}.jpg", "JPEG")
    refused = cli("segment", folder, "--out", out)
    assert_refused(refused, "0.jpg", "0.png", "2.jpg", "and 2 more", "use --keep-extension")
    assert not out.exists()
    assert cli("segment", folder, "--out", out, "--save", "mask", "--keep-extension")[0] == 0
    assert {path.name for path in (out / "masks").iterdir()} == {
        f"{index}.{suffix}.png" for index in range(5) for suffix in ("png", "jpg")
    }
    assert "0 images (10 were done" in cli("segment", folder, "--out", out, "--save", "mask", "--keep-extension")[1]
    (tmp_path / "more").mkdir()
    write_picture(tmp_path / "more" / "0.png")
    assert_refused(
        cli("segment", folder, tmp_path / "more", "--out", tmp_path / "o", "--keep-extension"), "0.png", "rename them"
    )
    assert_refused(cli("segment", folder / "0.png", tmp_path / "more", "--out", tmp_path / "o"), "rename them")


def test_names_that_differ_by_case_alone_clash_where_the_file_system_is_blind(cli: Cli, tmp_path: Path) -> None:
    found = [(Path("in/A.jpg"), Path("A.png")), (Path("in/a.jpg"), Path("a.png")), (Path("in/b.jpg"), Path("b.png"))]
    assert find_clashes(found) == []
    assert find_clashes(found, fold_name) == [(Path("A.png"), [Path("in/A.jpg"), Path("in/a.jpg")])]
    first, second = write_picture(tmp_path / "1" / "A.png"), write_picture(tmp_path / "2" / "a.png")
    result = cli("segment", first, second, "--out", tmp_path / "out", "--save", "mask")
    if (tmp_path / "1" / "a.png").exists():
        assert_refused(result, "A.png", "a.png")
    else:
        assert result[0] == 0
        assert len(list((tmp_path / "out" / "masks").iterdir())) == 2
    assert {path.name for path in tmp_path.iterdir()} <= {"1", "2", "out"}  # the trial file is gone


# The manifest

GOOD = {"path": "in/x.png", "name": "x.png", "status": "error", "bytes": 1, "mtime_ns": 1, "sha256": None}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0\0\0",
        b"null",
        b"[]",
        b'"finished"',
        b'{"finished": 3}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"name": "x"}',
        *(json.dumps({**GOOD, **change}).encode() for change in (
            {"name": ["x.png"]},
            {"name": {"a": 1}},
            {"name": "../../x.png"},
            {"name": "/etc/x.png"},
            {"name": ""},
            {"path": None},
            {"status": 3},
            {"bytes": "many"},
            {"mtime_ns": float("inf")},
            {"sha256": 1},
            {"output_bytes": {"mask": "x"}},
        )),
        json.dumps({**GOOD, "scores": 0}).replace("0}", "[" * 500 + "]" * 500 + "}").encode(),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused_with_its_line(cli: Cli, tmp_path: Path, line: bytes) -> None:
    source, out = write_picture(tmp_path / "a.png"), tmp_path / "out"
    data = json.dumps(GOOD).encode() + b"\n" + line + b"\n"
    write_atomic(out / MANIFEST, data)
    assert_refused(cli("segment", source, "--out", out), MANIFEST, "line 2 is no row of a manifest", "--overwrite")
    assert (out / MANIFEST).read_bytes() == data
    assert not (out / "masks").exists()


@pytest.mark.parametrize("name", ["a\ud800b.png", "a\0b.png", "a\udce9.png", "x" * 5000])
def test_names_that_no_file_has_do_no_harm(cli: Cli, tmp_path: Path, name: str) -> None:
    source, out = write_picture(tmp_path / "a.png"), tmp_path / "out"
    cli("segment", source, "--out", out, "--save", "mask")
    row = rows(out / MANIFEST)[0]
    twice = json.dumps({**row, "name": name})[:-1] + ', "width": 1, "width": 2}'
    (out / MANIFEST).write_text(json.dumps(row) + "\n" + twice + "\n")
    code, said, _ = cli("segment", source, "--out", out, "--save", "mask")
    assert (code, said.startswith("0 images (1 were done already)")) == (0, True)
    assert {row["name"] for row in rows(out / MANIFEST)} == {"a.png", name}


def test_an_empty_or_cut_manifest_is_continued(cli: Cli, tmp_path: Path) -> None:
    source, out = write_picture(tmp_path / "a.png"), tmp_path / "out"
    for data in (b"", b'{"path": "in', b"\0" * 4096, b"\r\r\r"):
        write_atomic(out / MANIFEST, data)
        assert cli("segment", source, "--out", out, "--save", "mask")[0] == 0
        assert [row["status"] for row in rows(out / MANIFEST)] == ["ok"]


@needs_posix
@pytest.mark.parametrize(("make", "kind"), [(os.mkdir, "folder"), (getattr(os, "mkfifo", None), "pipe")])
def test_a_manifest_that_is_no_file(cli: Cli, tmp_path: Path, make: Callable[[Path], None], kind: str) -> None:
    source, out = write_picture(tmp_path / "a.png"), tmp_path / "out"
    out.mkdir()
    make(out / MANIFEST)
    assert_refused(cli("segment", source, "--out", out), MANIFEST, f"is a {kind}")
    assert_refused(cli("segment", source, "--out", out, "--overwrite"), MANIFEST, f"is a {kind}")


@needs_posix
def test_a_link_in_the_output_folder_leads_nowhere(cli: Cli, tmp_path: Path) -> None:
    source, out = write_picture(tmp_path / "in" / "a.png"), tmp_path / "out"
    before = source.read_bytes()
    out.mkdir()
    (out / "masks").symlink_to(source.parent)
    for more in ((), ("--overwrite",)):
        refused = cli("segment", source, "--out", out, "--save", "mask", *more)
        assert_refused(refused, "masks: a symbolic link leads out of")
    (out / "masks").unlink()
    (out / MANIFEST).symlink_to(tmp_path / "note.txt")
    for note in (False, True):
        if note:
            (tmp_path / "note.txt").write_text("keep me")
        for more in ((), ("--overwrite",)):
            assert_refused(cli("segment", source, "--out", out, *more), f"{MANIFEST}: is a link")
        assert (tmp_path / "note.txt").exists() == note
    (out / MANIFEST).unlink()
    (out / MANIFEST).hardlink_to(tmp_path / "note.txt")
    assert cli("segment", source, "--out", out, "--overwrite")[0] == 0
    assert ((tmp_path / "note.txt").read_text(), source.read_bytes()) == ("keep me", before)


def test_a_result_that_was_cut_or_replaced_is_done_again(cli: Cli, tmp_path: Path) -> None:
    source, out = write_picture(tmp_path / "in" / "a.png"), tmp_path / "out"
    write_picture(tmp_path / "in" / "b.png", seed=1)
    command = ("segment", source.parent, "--out", out, "--save", "mask,cam")
    assert cli(*command)[0] == 0
    mask, cam = (out / folder / "a.png" for folder in ("masks", "cams"))
    before = mask.read_bytes(), cam.read_bytes()
    for damaged, data in ((mask, before[0][:20]), (mask, b""), (cam, before[1] + b"more")):
        damaged.write_bytes(data)
        assert cli(*command)[1].startswith("1 image (1 were done already)")
        assert (mask.read_bytes(), cam.read_bytes()) == before
    sizes = rows(out / MANIFEST)[0]["output_bytes"]
    assert sizes == {"mask": len(before[0]), "cam": len(before[1])}


def test_a_manifest_of_version_0_1_is_continued(cli: Cli, tmp_path: Path) -> None:
    source, out = write_picture(tmp_path / "a.png"), tmp_path / "out"
    cli("segment", source, "--out", out, "--save", "mask")
    old = [{key: value for key, value in row.items() if key != "output_bytes"} for row in rows(out / MANIFEST)]
    (out / MANIFEST).write_text("".join(json.dumps(row) + "\n" for row in old))
    assert "0 images (1 were done already)" in cli("segment", source, "--out", out, "--save", "mask")[1]
    assert_refused(cli("segment", source, "--out", out, "--save", "cam"), "other options")


def test_other_options_are_no_matter_where_nothing_was_finished(cli: Cli, tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.png", b"no image")
    out = tmp_path / "out"
    assert cli("segment", tmp_path / "a.png", "--out", out, "--save", "mask")[0] == 1
    write_picture(tmp_path / "a.png")
    assert cli("segment", tmp_path / "a.png", "--out", out, "--save", "mask,cam")[0] == 0
    assert [(row["status"], row["options"]["save"]) for row in rows(out / MANIFEST)] == [("ok", ["cam", "mask"])]


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


# Two at once


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


def test_a_second_run_into_the_same_folder_is_refused(cli: Cli, tmp_path: Path, running: subprocess.Popen[str]) -> None:
    other = write_picture(tmp_path / "other" / "a.png")
    for extra in ((), ("--overwrite",)):
        refused = cli("segment", other, "--out", tmp_path / "out", "--save", "mask", *extra)
        assert running.poll() is None, "the run was over too soon for this test"
        code, out, err = refused
        assert (code, out) == (2, "")
        assert "another process is writing to it; wait for that, or use another --out" in err.splitlines()[-1]
    running.kill()
    running.wait()
    done = rows(tmp_path / "out" / MANIFEST)
    assert {row["status"] for row in done} == {"ok"}  # no torn line
    assert cli("segment", other, "--out", tmp_path / "out", "--save", "mask")[0] == 0  # who died holds no lock
    assert len(rows(tmp_path / "out" / MANIFEST)) == len(done) + 1
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []


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


# Merging


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


# The options


@pytest.mark.parametrize("value", ["0", "-1", "nan", "x"])
def test_decode_timeout_is_a_positive_number(cli: Cli, tmp_path: Path, value: str) -> None:
    source = write_picture(tmp_path / "a.png")
    code, _, err = cli("segment", source, "--out", tmp_path / "out", "--decode-timeout", value)
    assert code == 2
    assert "decode-timeout" in err
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_result_folder_whose_name_is_not_unicode(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png")
    out = os.fsdecode(b"caf\xe9")
    for _ in range(2):
        done = in_process("in", "--out", out, "--save", "mask", cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "1 were done already" in done.stdout
