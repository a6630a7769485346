"""Tiles: the same answer as in one piece, no seams, bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import Pixels

from alserve import Predictor
from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.folder.manifest import MANIFEST
from alserve.geometry import BAND, STRIDE, enlarged, resize
from alserve.images.codec import peek_shape
from alserve.pooling import scores_of
from alserve.tiling import CAM_SCALE, Tiling, _Axis, run_tiled
from training.data.tissue import CLASSES, draw_tissue


def tissue(seed: int, height: int, width: int) -> Pixels:
    return draw_tissue(np.random.default_rng(seed), CLASSES[seed % 2], (height, width))[0]


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_tiled_mask_is_that_of_the_whole_image(predictor: Predictor, seed: int) -> None:
    image = resize(tissue(seed, 480, 720), (320, 480))  # glands as large as those that the model learned from
    scores, cams, mask = run_tiled(predictor.engine, image, Tiling(predictor.spec.short_side, 48), batch=4)
    whole = predictor.engine.run(image[None])
    tiled, untiled = mask > predictor.spec.threshold, whole.mask[0] > predictor.spec.threshold
    assert (tiled & untiled).sum() / (tiled | untiled).sum() >= 0.94  # every tile sees less around its pixels
    assert scores.argmax() == whole.scores[0].argmax()
    np.testing.assert_allclose(scores_of(whole.cams[0], predictor.spec.cam_stride), whole.scores[0], atol=1e-4)
    assert scores.sum() == pytest.approx(1, abs=1e-5)
    assert cams.shape == (2, 320 // STRIDE * CAM_SCALE, 480 // STRIDE * CAM_SCALE)
    for tiled_cam, untiled_cam in zip(cams, whole.cams[0], strict=True):
        there = resize(untiled_cam, tiled_cam.shape)
        fits = [_likeness(np.roll(tiled_cam, shift * CAM_SCALE, axis=(0, 1)), there) for shift in (-2, -1, 0, 1, 2)]
        assert fits[2] == max(fits) > 0.35  # in its place, though every tile sees less around it


def test_no_seams(predictor: Predictor) -> None:
    side = predictor.spec.short_side
    image = tissue(1, 640, 960)
    _, _, mask = run_tiled(predictor.engine, image, Tiling(side, 48), batch=4)
    _, _, hard = run_tiled(predictor.engine, image, Tiling(side, 0), batch=4)
    whole = predictor.engine.run(image[None]).mask[0]
    edges = np.arange(side, 960, side)

    def jump(probability: np.ndarray, columns: np.ndarray) -> float:
        return float(np.abs(probability[:, columns] - probability[:, columns - 1]).mean())

    starts = np.arange(side - 32, 960, side - 32)  # 48 rounded to whole cells: tiles every 160 pixels
    assert jump(hard, edges) > 1.5 * jump(whole, edges)  # what a seam looks like
    assert jump(mask, starts) < 1.1 * jump(whole, starts)


@given(st.integers(1, 5000), st.integers(8, 320), st.floats(0, 0.5), st.sampled_from([STRIDE, 8, 1]))
def test_shares_of_tiles_add_up_to_one(length: int, side: int, overlap: float, unit: int) -> None:
    axis = _Axis.along(length, Tiling(side, int(side * overlap)), cells=8)
    total = np.zeros(axis.extent(unit))
    for index in range(axis.count):
        start = index * axis.step * unit
        total[start : start + axis.cells * unit] += axis.weights(index, unit)
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert axis.extent(1) * side >= 8 * length
    assert axis.count == 1 or (axis.extent(1) - axis.step) * side < 8 * length  # none is superfluous


@pytest.mark.parametrize("side", [185, 191, 197])
def test_a_side_of_no_whole_cells_is_kept_and_in_place(predictor: Predictor, side: int) -> None:
    image = tissue(2, 640, 900)
    tiling, even = Tiling.of(side, 48, predictor.spec), Tiling.of(192, 48, predictor.spec)
    assert (tiling.side, even.side) == (side, 192)
    mask, expected = (predictor.predict(image, tiling=each).mask() for each in (tiling, even))
    assert (mask & expected).sum() / (mask | expected).sum() >= 0.96


@pytest.mark.parametrize(("height", "width"), [(100, 100), (101, 40), (250, 333), (390, 201)])
def test_tiles_are_counted_as_they_are_done(predictor: Predictor, height: int, width: int) -> None:
    done: list[int] = []
    tiling = Tiling(100, 30, on_tiles=done.append)
    predictor.predict(np.zeros((height, width, 3), np.uint8), tiling=tiling)
    assert (sum(done) or 1) == tiling.count(height, width, predictor.spec)
    assert bool(done) == tiling.applies(height, width)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (191, 700), (193, 193), (640, 7)])
def test_any_shape(predictor: Predictor, shape: tuple[int, int]) -> None:
    prediction = predictor.predict(tissue(3, 640, 900)[: shape[0], : shape[1]].copy(), tiling=Tiling(192, 48))
    assert prediction.mask().shape == prediction.cam().shape == shape
    assert np.isfinite(prediction.probability()).all()


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 3), st.floats(1, 3))
def test_bands_are_the_resized_whole(height: int, width: int, factor: int, stretch: float) -> None:
    array = np.random.default_rng(height).random((height * 40, width), np.float32)
    shape = (int(height * 40 * factor * stretch), int(width * stretch) + 1)
    bands = list(enlarged(array, shape))
    assert [top for top, _ in bands] == list(range(0, shape[0], BAND))
    np.testing.assert_allclose(np.concatenate([band for _, band in bands]), resize(array, shape), atol=2e-3)


def test_options(predictor: Predictor) -> None:
    spec = predictor.spec.model_copy(update={"training_short_side": 500, "short_side": 256})
    assert Tiling.of("auto", None, spec) == Tiling(500, 125, automatic=True)
    assert Tiling.of("1000", 100, spec) == Tiling(1000, 100)
    assert [Tiling.of("auto", None, spec).applies(*size) for size in ((749, 3000), (750, 750))] == [False, True]
    assert [Tiling.of("512", None, spec).applies(*size) for size in ((512, 512), (100, 513))] == [False, True]
    for tile, overlap in (("big", None), ("0", None), ("7", None), ("512", 257), ("512", -1)):
        with pytest.raises(DataError, match=r"--(tile|overlap)"):
            Tiling.of(tile, overlap, spec)
    with pytest.raises(DataError, match="does not say how large"):
        Tiling.of("auto", None, spec.model_copy(update={"training_short_side": None}))


PEAK = """
import re, sys
from pathlib import Path
from alserve.cli import app
try:
    app(sys.argv[1:])
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_a_picture_of_400_million_pixels_fits_in_four_gibibytes(tmp_path: Path) -> None:
    side = 20_000
    picture = np.tile(cv2.resize(tissue(0, 250, 250), (2500, 2500)), (8, 8, 1))
    write_atomic(tmp_path / "slide.jpg", bytes(cv2.imencode(".jpg", picture)[1]))
    del picture
    command = [sys.executable, "-c", PEAK, "segment", "slide.jpg", "--out", "out"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "more than the 67,108,864 allowed" in refused.stderr
    command += ["--tile", "1920", "--overwrite"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stderr.splitlines()[-1]) * 1024 <= 4 * 2**30
    (row,) = [json.loads(line) for line in (tmp_path / "out" / MANIFEST).read_text().splitlines()]
    assert (row["status"], row["height"], row["width"]) == ("ok", side, side)
    shapes = [peek_shape(tmp_path / "out" / folder / "slide.png") for folder in ("masks", "cams", "overlays")]
    assert shapes[:2] == [(side, side)] * 2
    assert shapes[2] == (8192, 8192)  # drawn smaller
