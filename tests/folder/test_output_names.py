"""Names of output files: none is written twice, over an input, or over what is not of a run."""

import os
import sys
from pathlib import Path

import pytest
from command import Cli, assert_refused
from folders import SUMMARY, files, in_process, manifest, needs_posix, write_picture

from alserve import Predictor
from alserve.errors import DataError, RunError
from alserve.folder.manifest import MANIFEST
from alserve.folder.plan import find_clashes, fold_name
from alserve.folder.segment import segment


def test_a_file_goes_to_its_own_name_whatever_its_suffix(tmp_path: Path, predictor: Predictor) -> None:
    named = write_picture(tmp_path / "x" / "y" / "scan.007")
    segment(named, out=tmp_path / "out", model=predictor, save="mask")
    assert files(tmp_path / "out") == {"masks/scan.007.png", MANIFEST} | SUMMARY


@pytest.mark.parametrize("where", ["in/out", "in", "."])
def test_results_are_never_read_as_input(tmp_path: Path, predictor: Predictor, where: str) -> None:
    write_picture(tmp_path / "in" / "one.png")
    out = tmp_path / where
    for overwrite in (False, True):
        assert segment(tmp_path / "in", out=out, model=predictor, overwrite=overwrite).images == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [("in/a.png", "in/a.jpg"), ("in/a.png", "other/a.png"), ("in/sub/a.png", "other/sub/a.tif")],
)
def test_two_inputs_for_one_file_are_refused(tmp_path: Path, predictor: Predictor, first: str, second: str) -> None:
    both = [write_picture(tmp_path / first), write_picture(tmp_path / second)]
    inputs = sorted({tmp_path / name.split("/")[0] for name in (first, second)})
    with pytest.raises(DataError) as caught:
        segment(inputs, out=tmp_path / "out", model=predictor)
    assert all(str(path) in str(caught.value) for path in both)
    assert not (tmp_path / "out").exists()


def test_an_input_is_never_written_over(tmp_path: Path, predictor: Predictor) -> None:
    source = write_picture(tmp_path / "data" / "masks" / "a.png")
    before = source.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(RunError, match=r"a\.png: is an input"):
            segment(source, out=tmp_path / "data", model=predictor, overwrite=overwrite)
    assert source.read_bytes() == before


def test_masks_without_a_manifest_are_not_written_over(tmp_path: Path, predictor: Predictor) -> None:
    write_picture(tmp_path / "images" / "a.png")
    truth = write_picture(tmp_path / "masks" / "a.png", seed=9)
    before = truth.read_bytes()
    with pytest.raises(RunError, match="exists already"):
        segment(tmp_path / "images", out=tmp_path, model=predictor)
    assert truth.read_bytes() == before


def test_out_is_a_file_or_cannot_be_made(tmp_path: Path, predictor: Predictor) -> None:
    source = write_picture(tmp_path / "a.png")
    with pytest.raises(RunError, match="is a file"):
        segment(source, out=source, model=predictor)
    with pytest.raises(RunError, match="cannot be written"):
        segment(source, out=Path("/proc/none/out"), model=predictor)


def test_a_name_too_long_for_its_picture_fails_alone(tmp_path: Path, predictor: Predictor) -> None:
    longest = write_picture(tmp_path / ("x" * 251 + ".bmp"))
    nameless = write_picture(tmp_path / ("y" * 254))
    (tmp_path / "out" / "masks").mkdir(parents=True)
    result = segment([longest, nameless], out=tmp_path / "out", model=predictor, save="mask")
    assert (result.images, result.failed) == (2, 1)
    assert "too long" in manifest(tmp_path / "out")[1]["error"]


@pytest.mark.skipif(sys.platform != "linux", reason="macOS allows no such names")
def test_a_name_that_is_not_unicode(tmp_path: Path, predictor: Predictor) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    write_picture(tmp_path / "in" / name)
    segment(tmp_path / "in", out=tmp_path / "out", model=predictor, save="mask")
    assert (tmp_path / "out" / "masks" / name).exists()
    assert manifest(tmp_path / "out")[0]["path"].endswith(name)


def test_all_pairs_that_would_share_a_name_are_counted_and_can_be_told_apart(cli: Cli, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for index in range(5):
        write_picture(folder / f"{index}.png")
        write_picture(folder / f"{index}.jpg")
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
    found = [("in/A.jpg", "A.png"), ("in/a.jpg", "a.png"), ("in/b.jpg", "b.png")]
    assert find_clashes(found) == []
    assert find_clashes(found, fold_name) == [("A.png", ["in/A.jpg", "in/a.jpg"])]
    first, second = write_picture(tmp_path / "1" / "A.png"), write_picture(tmp_path / "2" / "a.png")
    result = cli("segment", first, second, "--out", tmp_path / "out", "--save", "mask")
    if (tmp_path / "1" / "a.png").exists():
        assert_refused(result, "A.png", "a.png")
    else:
        assert result[0] == 0
        assert len(list((tmp_path / "out" / "masks").iterdir())) == 2
    assert {path.name for path in tmp_path.iterdir()} <= {"1", "2", "out"}  # the trial file is gone


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_result_folder_whose_name_is_not_unicode(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png")
    out = os.fsdecode(b"caf\xe9")
    for _ in range(2):
        done = in_process("in", "--out", out, "--save", "mask", cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "1 were done already" in done.stdout
