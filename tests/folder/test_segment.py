"""Folder runs: the same structure out as in, one row an image, and a bad image stops no other."""

import csv
import io
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from command import Cli
from folders import SIZES, SUMMARY, files, manifest, needs_posix, rows, write_picture
from pictures import encoded, imagej_tiff, picture
from PIL import Image

from alserve import Predictor
from alserve.errors import DeviceError, OptionError, RunError
from alserve.files import write_atomic
from alserve.folder.engines.local import LocalEngine
from alserve.folder.manifest import MANIFEST, Manifest
from alserve.folder.plan import plan
from alserve.folder.result import SegmentResult
from alserve.folder.run import DEFAULT_SAVE, Options, run
from alserve.folder.segment import parse_save, segment
from alserve.images.codec import decode, decode_mask, read_image
from alserve.images.decoders import Decoders
from alserve.outputs import OUTPUTS


def test_structure_sizes_and_values(tree: Path, predictor: Predictor) -> None:
    out = tree.parent / "out"
    result = segment(tree, out=out, model=predictor, threads=2)
    assert (result.images, result.failed, result.exit_code) == (len(SIZES), 0, 0)
    names = {name.rpartition(".")[0] + ".png": size for name, size in SIZES.items()}
    assert (
        files(out)
        == {f"{OUTPUTS[word].folder}/{name}" for word in DEFAULT_SAVE for name in names} | {MANIFEST} | SUMMARY
    )
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
    for later in runs[1:]:
        for row, first in zip(later, runs[0], strict=True):
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
        result = run(LocalEngine(predictor, decoders, 2), planned, notes, options, batch_size=None)
    assert (result.images, result.failed) == (len(SIZES), 1)
    assert "No such file" in {row["name"]: row["error"] for row in manifest(out)}["b.png"]


@pytest.mark.parametrize("save", [("mask",), ("cam",), ("overlay",), ("mask", "overlay")])
def test_only_what_was_asked_for_is_saved(tree: Path, predictor: Predictor, save: tuple[str, ...]) -> None:
    out = tree.parent / "out"
    segment(tree, out=out, model=predictor, save=save)
    assert {path.name for path in out.iterdir()} == {OUTPUTS[word].folder for word in save} | {MANIFEST} | SUMMARY
    assert all(row["foreground"] is not None for row in manifest(out))


def test_postprocessing_is_in_all_outputs_and_noted(tree: Path, predictor: Predictor) -> None:
    out = tree.parent / "out"
    of_mask = {"threshold": 0.4, "smooth": 1.0, "fill_holes": True, "min_area": 60}
    options = of_mask | {"split_touching": 5.0, "um_per_pixel": 0.5}
    save = ("mask", "objects")
    segment(tree, out=out, model=predictor, save=save, **options)  # type: ignore[arg-type]
    for row in manifest(out):
        prediction = predictor.predict(row["path"])
        expected = prediction.mask(**of_mask)
        written = decode((out / "masks" / Path(row["name"]).with_suffix(".png")).read_bytes())
        np.testing.assert_array_equal(written[..., 0] > 0, expected)
        assert row["foreground"] == pytest.approx(expected.mean())
        table = (out / "objects" / Path(row["name"]).with_suffix(".csv")).read_text().splitlines()
        assert sum(int(line.split(",")[2]) for line in table[1:]) == expected.sum()
        assert table[0].endswith(",area_um2,perimeter_um,equivalent_diameter_um")
        assert row["options"] == {"save": ["mask", "objects"], "tile": None, **options}
    with pytest.raises(RunError, match="other options"):
        segment(tree, out=out, model=predictor, save=save)
    with pytest.raises(OptionError, match="min_area -1"):
        segment(tree, out=out, model=predictor, min_area=-1)


def test_objects_are_measured_by_what_each_file_states(
    tree: Path, predictor: Predictor, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tree.parent / "out"
    (tree / "stated.tif").write_bytes(imagej_tiff(picture(90, 120), 0.25))
    auto = {"save": ("mask", "objects"), "threshold": 0.4, "um_per_pixel": "auto"}
    segment(tree, out=out, model=predictor, **auto)  # type: ignore[arg-type]
    missing = "the file states no usable size of a pixel: measured in pixels only"
    for row in manifest(out):
        stated = row["path"].endswith("stated.tif")
        assert row["um_per_pixel"] == (0.25 if stated else None)
        assert (row["warning"] or "").endswith(missing) == (not stated)
        assert row["options"]["um_per_pixel"] == "auto"
        table = (out / "objects" / Path(row["name"]).with_suffix(".csv")).read_text()
        for item in csv.DictReader(io.StringIO(table)):
            assert item["area_um2"] == (f"{int(item['area']) / 16:.6g}" if stated else "")
            assert float(item["perimeter"]) > 0
    assert missing in capfd.readouterr().err
    (tree / "stated.tif").write_bytes(imagej_tiff(picture(90, 120), 0.5))
    assert segment(tree, out=out, model=predictor, **auto).images == 1  # type: ignore[arg-type]
    assert {row["name"]: row["um_per_pixel"] for row in manifest(out)}["stated.png"] == 0.5
    with pytest.raises(RunError, match="other options"):
        segment(tree, out=out, model=predictor, **(auto | {"um_per_pixel": 0.5}))  # type: ignore[arg-type]


def test_save_words() -> None:
    assert parse_save("mask, cam,mask") == parse_save(["mask", "cam"]) == ("mask", "cam")
    for text in ("", "mask,", "masks", "mask;cam"):
        with pytest.raises(OptionError, match=f"--save '{text}': unknown output .*there are cam, coco, cutout, label-"):
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
        Manifest(tmp_path / "out" / MANIFEST, model=predictor.engine.sha256, options=options.describe()) as notes,
    ):
        result = run(LocalEngine(predictor, decoders, 1), planned, notes, options, batch_size=3)
    assert (result.images, result.failed) == (3, 2)
    errors = {row["name"]: row["error"] for row in rows(tmp_path / "out" / MANIFEST)}
    assert errors == {"a.png": "cannot be read: it is a pipe", "b.png": "cannot be read: it is a folder", "c.png": None}


@pytest.mark.parametrize("value", ["0", "-1", "nan", "x"])
def test_decode_timeout_is_a_positive_number(cli: Cli, tmp_path: Path, value: str) -> None:
    source = write_picture(tmp_path / "a.png")
    code, _, err = cli("segment", source, "--out", tmp_path / "out", "--decode-timeout", value)
    assert code == 2
    assert "decode-timeout" in err
    assert "Traceback" not in err
