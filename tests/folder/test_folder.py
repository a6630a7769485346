"""Folder runs: the same structure out as in, one row an image, and no image lost or written over."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image

from alserve import Predictor, load
from alserve.errors import DataError, DeviceError, OptionError, RunError
from alserve.files import write_atomic
from alserve.folder.manifest import MANIFEST, Manifest
from alserve.folder.plan import plan
from alserve.folder.result import SegmentResult
from alserve.folder.run import DEFAULT_SAVE, Options, run
from alserve.folder.segment import parse_save, segment
from alserve.folder.shards import Shard
from alserve.images.codec import decode, decode_mask, read_image
from alserve.images.decoders import Decoders
from alserve.outputs import OUTPUTS
from training.export.to_onnx import stamp

SIZES = {"b.png": (60, 80), "a.jpg": (90, 70), "deep/er/c.tif": (50, 50), "deep/Drüse 腺.bmp": (64, 48)}
SIZES |= {"line\nbreak.webp": (40, 60), "dotted.name.JPEG": (33, 65)}
KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".bmp": "BMP", ".webp": "WEBP"}


def write_picture(path: Path, height: int = 40, width: int = 56, seed: int = 0) -> Path:
    write_atomic(path, encoded(picture(height, width, seed), KINDS.get(path.suffix.lower(), "PNG")))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for seed, (name, size) in enumerate(SIZES.items()):
        write_picture(tmp_path / "in" / name, *size, seed)
    return tmp_path / "in"


def manifest(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_structure_sizes_and_values(tree: Path, predictor: Predictor) -> None:
    out = tree.parent / "out"
    result = segment(tree, out=out, model=predictor, threads=2)
    assert (result.images, result.failed, result.exit_code) == (len(SIZES), 0, 0)
    names = {name.rpartition(".")[0] + ".png": size for name, size in SIZES.items()}
    assert files(out) == {f"{OUTPUTS[word].folder}/{name}" for word in DEFAULT_SAVE for name in names} | {MANIFEST}
    for name, size in names.items():
        for folder, shape in (("masks", size), ("cams", size), ("overlays", (*size, 3))):
            data = (out / folder / name).read_bytes()
            assert decode(data).shape == (*size, 3)
            assert data[25] == (0 if len(shape) == 2 else 2)  # PNG's colour type: grey, RGB
            assert data[24] == 8  # bits
        assert set(np.unique(read_image(out / "masks" / name))) <= {0, 255}


def test_manifest_and_files_are_what_the_predictor_says(tree: Path, predictor: Predictor) -> None:
    out = tree.parent / "out"
    segment(tree, out=out, model=predictor, threads=2)
    rows = manifest(out)
    assert [row["path"] for row in rows] == sorted((tree / name).as_posix() for name in SIZES)
    for row in rows:
        (prediction,) = predictor.predict([read_image(Path(row["path"]))])
        mask_file = (out / "masks" / Path(row["path"]).relative_to(tree)).with_suffix(".png")
        assert (row["status"], row["error"], row["label"]) == ("ok", None, prediction.label)
        assert (row["height"], row["width"]) == (prediction.height, prediction.width)
        assert row["scores"] == pytest.approx(prediction.scores, abs=1e-5)
        np.testing.assert_array_equal(decode_mask(mask_file.read_bytes()), prediction.mask())
        assert row["foreground"] == pytest.approx(prediction.mask().mean())


def test_order_and_content_do_not_depend_on_batches_and_threads(tree: Path, predictor: Predictor) -> None:
    write_atomic(tree / "bad.png", b"no image")
    runs = []
    for batch_size, workers in ((1, 1), (1, 4), (3, 2), (100, 1)):
        out = tree.parent / f"out-{batch_size}-{workers}"
        segment(tree, out=out, model=predictor, batch_size=batch_size, threads=workers)
        runs.append(manifest(out))
    for rows in runs[1:]:
        for row, first in zip(rows, runs[0], strict=True):
            assert (row["path"], row["status"], row["label"]) == (first["path"], first["status"], first["label"])
            if row["status"] == "ok":
                assert row["scores"] == pytest.approx(first["scores"], abs=1e-4)


def test_bad_images_are_noted_and_the_rest_goes_on(tree: Path, predictor: Predictor) -> None:
    jpeg = (tree / "a.jpg").read_bytes()
    bad = {"cut.jpg": jpeg[: len(jpeg) // 2], "empty.png": b"", "text.jpg": b"hello"}
    for name, data in bad.items():
        write_atomic(tree / "bad" / name, data)
    (tree / "bad" / "nowhere.png").symlink_to("none.png")
    out = tree.parent / "out"
    result = segment(tree, out=out, model=predictor, threads=2)
    assert (result.images, result.failed, result.exit_code) == (len(SIZES) + 4, 4, 1)
    failed = {Path(row["path"]).name: row for row in manifest(out) if row["status"] == "error"}
    assert set(failed) == {*bad, "nowhere.png"}
    assert "ends too early" in failed["cut.jpg"]["error"]
    assert "empty" in failed["empty.png"]["error"]
    assert "not an image" in failed["text.jpg"]["error"]
    assert "No such file" in failed["nowhere.png"]["error"]
    assert all(row["label"] is row["scores"] is row["width"] is None for row in failed.values())
    assert len(files(out / "masks")) == len(SIZES)


def test_shapes_and_kinds_that_break_others(tmp_path: Path, predictor: Predictor) -> None:
    folder = tmp_path / "in"
    frames = [Image.fromarray(picture(40, 56, seed)) for seed in range(3)]
    jpeg = bytearray(encoded(picture(16, 16), "JPEG"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", 16000, 16000)
    given = {
        "1x1.png": encoded(picture(1, 1)),
        "1x5000.png": encoded(picture(1, 5000)),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "claims.jpg": bytes(jpeg) + bytes(20_000),
        "float.tif": encoded(np.full((8, 8), np.nan, np.float32), "TIFF"),
        "a b 😀.png": encoded(picture()),
        "pages.tif": encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "x" * 246 + ".png": encoded(picture()),
    }
    for name, data in given.items():
        write_atomic(folder / name, data)
    result = segment(folder, out=tmp_path / "out", model=predictor, threads=2)
    rows = {Path(row["path"]).name: row for row in manifest(tmp_path / "out")}
    assert set(rows) == set(given)
    assert {name for name, row in rows.items() if row["error"]} == {"claims.jpg", "float.tif"}
    assert "16000 x 16000 pixels" in rows["claims.jpg"]["error"]
    assert (result.failed, result.exit_code) == (2, 1)
    warned = {name: row["warning"] for name, row in rows.items() if row["warning"]}
    assert warned == dict.fromkeys(("animated.gif", "pages.tif"), "the first of several frames is used")
    assert decode_mask((tmp_path / "out" / "masks" / "1x5000.png").read_bytes()).shape == (1, 5000)


def test_a_file_that_goes_away_while_running_fails_alone(tree: Path, predictor: Predictor) -> None:
    out = tree.parent / "out"
    planned = plan([tree], out, save=("mask",))
    (tree / "b.png").unlink()
    options = Options(("mask",))
    with (
        Decoders(2, 60) as decoders,
        Manifest(out / MANIFEST, model=predictor.engine.sha256, options=options.describe()) as notes,
    ):
        result = run(predictor, decoders, planned, notes, options, batch_size=None, workers=2)
    assert (result.images, result.failed) == (len(SIZES), 1)
    assert "No such file" in {row["name"]: row["error"] for row in manifest(out)}["b.png"]


@pytest.mark.parametrize("save", [("mask",), ("cam",), ("overlay",), ("mask", "overlay")])
def test_only_what_was_asked_for_is_saved(tree: Path, predictor: Predictor, save: tuple[str, ...]) -> None:
    out = tree.parent / "out"
    segment(tree, out=out, model=predictor, save=save)
    assert {path.name for path in out.iterdir()} == {OUTPUTS[word].folder for word in save} | {MANIFEST}
    assert all(row["foreground"] is not None for row in manifest(out))


def test_a_file_goes_to_its_own_name_whatever_its_suffix(tmp_path: Path, predictor: Predictor) -> None:
    named = write_picture(tmp_path / "x" / "y" / "scan.007")
    segment(named, out=tmp_path / "out", model=predictor, save="mask")
    assert files(tmp_path / "out") == {"masks/scan.007.png", MANIFEST}


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


def test_a_killed_run_continues_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    for index in range(60):
        write_picture(tmp_path / "in" / f"{index:03}.png", 200, 300, index)
    command = [sys.executable, "-m", "alserve", "segment", "in", "--save", "mask,cam", "--out"]
    subprocess.run([*command, "whole"], cwd=tmp_path, check=True)
    done = tmp_path / "cut" / MANIFEST
    for rows in (3, 20):
        with subprocess.Popen([*command, "cut"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not done.exists() or done.read_bytes().count(b"\n") < rows):
                time.sleep(0.01)
            process.kill()
        assert process.returncode == -signal.SIGKILL
    with done.open("ab") as file:
        file.write(b'{"path": "in/0')  # what a full disk or a lost machine leaves of a line
    last = subprocess.run([*command, "cut"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "were done already" in last.stdout
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_every_image_is_in_one_shard_whatever_others_there_are(tmp_path: Path) -> None:
    for index in range(40):
        write_picture(tmp_path / "in" / f"{index}.png")
    shards = [Shard(index, 3) for index in (1, 2, 3)]

    def parts() -> list[set[str]]:
        plans = [plan([tmp_path / "in"], tmp_path / "out", save=("mask",), shard=shard) for shard in shards]
        return [{image.name.as_posix() for image in part.images} for part in plans]

    before = parts()
    assert sum(map(len, before)) == len(set.union(*before)) == 40
    assert min(map(len, before)) > 5
    (tmp_path / "in" / "7.png").unlink()
    assert parts() == [part - {"7.png"} for part in before]


def test_masks_without_a_manifest_are_not_written_over(tmp_path: Path, predictor: Predictor) -> None:
    write_picture(tmp_path / "images" / "a.png")
    truth = write_picture(tmp_path / "masks" / "a.png", seed=9)
    before = truth.read_bytes()
    with pytest.raises(RunError, match="exists already"):
        segment(tmp_path / "images", out=tmp_path, model=predictor)
    assert truth.read_bytes() == before


def test_no_images(tmp_path: Path, predictor: Predictor) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"no images in .*in \(looked for .*\.png"):
        segment(tmp_path / "in", out=tmp_path / "out", model=predictor)
    with pytest.raises(DataError, match="no such file or folder"):
        segment(tmp_path / "none", out=tmp_path / "out", model=predictor)


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


def test_save_words() -> None:
    assert parse_save("mask, cam,mask") == parse_save(["mask", "cam"]) == ("mask", "cam")
    for text in ("", "mask,", "masks", "mask;cam"):
        with pytest.raises(OptionError, match=f"--save '{text}': unknown output .*there are cam, mask, overlay"):
            parse_save(text)
    with pytest.raises(OptionError, match=r"--save 'mask,overly': unknown output 'overly'; did you mean overlay\?"):
        parse_save("mask,overly")


def test_a_result_says_how_the_run_went() -> None:
    path = Path("out", MANIFEST)
    assert SegmentResult(path, images=3).exit_code == 0
    assert SegmentResult(path, images=3, failed=1).exit_code == 1
    assert SegmentResult(path, images=3, wanted=1, left_out=1).exit_code == 1
    stopped = SegmentResult(path, images=3, failed=1, skipped=2, remaining=4, left_out=1, seconds=1.5)
    assert (stopped.exit_code, stopped.interrupted, stopped.rate) == (130, True, 2.0)
    assert str(stopped) == (
        "interrupted after 3 of 7 images (2 were done already), 1 failed (see predictions.jsonl), "
        "1 left out (see left-out.jsonl), 2.0 images/s, in out"
    )


def test_a_model_file_a_text_and_a_thread_will_do(tree: Path, predictor: Predictor) -> None:
    out = tree.parent / "out"
    with ThreadPoolExecutor(1) as pool:  # outside of the main thread nobody can listen to Ctrl-C
        result = pool.submit(segment, str(tree), out=str(out), model=str(predictor.engine.path), save="mask").result()
    assert (result.images, result.manifest) == (len(SIZES), out / MANIFEST)
    assert result.rows() == manifest(out)
    with pytest.raises(DeviceError, match="unknown device 'gpu'"):
        segment(tree, out=out, model=predictor.engine.path, device="gpu")


@pytest.mark.skipif(os.name == "nt", reason="no such limit on Windows")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png", 300, 400)
    command = f"ulimit -f 1; exec {sys.executable} -m alserve segment in --out out --save overlay"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be written: File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert files(tmp_path / "out") <= {MANIFEST}


@pytest.mark.skipif(os.name == "nt", reason="no such signal on Windows")
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
