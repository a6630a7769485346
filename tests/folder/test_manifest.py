"""The manifest: what is done is not done again, what is damaged is found, and what is none is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Cli, assert_refused
from folders import SIZES, contents, manifest, needs_posix, rows, write_picture
from pictures import encoded, picture

from alserve import Predictor, load
from alserve.errors import RunError
from alserve.files import write_atomic
from alserve.folder.manifest import MANIFEST
from alserve.folder.segment import segment
from training.export.to_onnx import stamp

GOOD = {"path": "in/x.png", "name": "x.png", "status": "error", "bytes": 1, "mtime_ns": 1, "sha256": None}


def test_the_same_again_does_what_is_missing_or_has_changed(tree: Path, predictor: Predictor) -> None:
    out = tree.parent / "out"
    write_atomic(tree / "bad.png", b"no image")
    segment(tree, out=out, model=predictor)
    before, rows = contents(out), manifest(out)
    (out / "masks" / "a.png").unlink()  # missing
    write_atomic(tree / "b.png", encoded(picture(60, 80, seed=77)))  # changed
    os.utime(tree / "deep/er/c.tif", (1, 1))  # touched, but of the same content
    write_atomic(tree / "bad.png", encoded(picture(30, 30)))  # mended
    (tree / "line\nbreak.webp").unlink()  # gone: what was made of it stays
    result = segment(tree, out=out, model=predictor)
    assert (result.images, result.skipped, result.failed) == (3, len(SIZES) - 3, 0)
    after = contents(out)
    assert {name for name in before if after[name] != before[name]} - {MANIFEST} >= {"overlays/b.png"}
    assert after["masks/a.png"] == before["masks/a.png"]
    assert [row["path"] for row in manifest(out)] == [row["path"] for row in rows]
    assert {row["status"] for row in manifest(out)} == {"ok"}


def test_overwriting_takes_away_what_no_longer_holds(tree: Path, predictor: Predictor) -> None:
    out = tree.parent / "out"
    segment(tree, out=out, model=predictor)
    write_atomic(tree / "b.png", b"now broken")
    result = segment(tree, out=out, model=predictor, overwrite=True)
    assert (result.images, result.failed) == (len(SIZES), 1)
    assert not (out / "masks" / "b.png").exists()  # an old mask beside the row "error" would mislead


def test_results_of_another_model_or_of_other_options_are_not_mixed(tree: Path, predictor: Predictor) -> None:
    out = tree.parent / "out"
    segment(tree, out=out, model=predictor, save="mask")
    with pytest.raises(RunError, match=r"other options.*--overwrite"):
        segment(tree, out=out, model=predictor, save="mask,cam")
    with pytest.raises(RunError, match=r"other options.*--overwrite"):
        segment(tree, out=out, model=predictor, save="mask", tile=64, overlap=16)
    other = tree.parent / "other.onnx"
    stamp(other, predictor.spec.model_copy(update={"threshold": 0.25}), predictor.engine.path)
    with pytest.raises(RunError, match=r"another model.*--overwrite"):
        segment(tree, out=out, model=load(other, threads=1), save="mask")


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
