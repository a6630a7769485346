"""What a folder run finds, leaves out and refuses, and the names of what it writes."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
from command import Cli, assert_refused
from folders import HEIC, files, in_process, needs_posix, rows, write_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alserve import Predictor
from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.folder.manifest import MANIFEST
from alserve.folder.plan import plan
from alserve.folder.planned import LEFT_OUT
from alserve.folder.segment import segment
from alserve.images.header import FORMATS, SUFFIXES
from alserve.images.kinds import kind_of_file

names = st.lists(st.sampled_from(["a", "b", "A", "sub", "é", "e\u0301", ".h"]), min_size=1, max_size=3).map("/".join)


suffixes = st.sampled_from(["", ".png", ".jpg", ".JPG", ".jpe", ".txt", ".heic", ".svs", ".tif", ".png.tif"])


heads = st.sampled_from([b"hello", b"", HEIC, b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"GIF89a"])


def reasons(out: Path) -> dict[str, str]:
    return {Path(row["path"]).name: row["reason"] for row in rows(out / LEFT_OUT)}


def test_images_that_are_not_read_are_named_and_listed(cli: Cli, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_picture(folder / "a.png")
    for name in ("b.heic", "sub/c.HEIC", "no suffix"):
        write_atomic(folder / name, HEIC)
    write_atomic(folder / "scan.dcm", bytes(128) + b"DICM")
    write_picture(folder / "slide.svs", kind="TIFF")
    write_picture(folder / "photo.nef", kind="TIFF")
    write_picture(folder / "map.gtiff", kind="TIFF")
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
        write_picture(tmp_path / "in" / name, kind=kind)
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


def test_hidden_and_foreign_files_are_left_alone(tmp_path: Path, predictor: Predictor) -> None:
    write_picture(tmp_path / "in" / "seen.png")
    write_picture(tmp_path / "in" / ".hidden.png")
    write_picture(tmp_path / "in" / ".cache" / "thumbnail.png")
    (tmp_path / "in" / "notes.txt").write_text("hello")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    assert segment(tmp_path / "in", out=tmp_path / "out", model=predictor).images == 1


def test_links_are_followed_but_not_in_circles(tmp_path: Path, predictor: Predictor) -> None:
    write_picture(tmp_path / "elsewhere" / "one.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "in")
    segment(tmp_path / "in", out=tmp_path / "out", model=predictor, save="mask")
    assert files(tmp_path / "out" / "masks") == {"link/one.png"}


def test_no_images(tmp_path: Path, predictor: Predictor) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"no images in .*in \(looked for .*\.png"):
        segment(tmp_path / "in", out=tmp_path / "out", model=predictor)
    with pytest.raises(DataError, match="no such file or folder"):
        segment(tmp_path / "none", out=tmp_path / "out", model=predictor)


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
    images, left = {Path(image.path) for image in planned.images}, {Path(item.path) for item in planned.left_out}
    targets = [target for image in planned.images for target in image.targets.values()]
    assert len(targets) == len(set(targets)) == 2 * len(images)
    assert not images & left
    for path in (path for path in (top / "in").rglob("*") if path.is_file()):
        hidden = any(part.startswith(".") for part in path.relative_to(top / "in").parts)
        kind = kind_of_file(path, path.read_bytes())
        image = path.suffix.lower() in SUFFIXES or (kind in FORMATS and (kind != "TIFF" or not path.suffix))
        assert (path in images, path in left) == (image and not hidden, bool(kind) and not image and not hidden)
