"""Shapes that are painted over each other: compared with rays counted one by one, and within limits."""

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon

from alserve.objects import find_objects
from training.annotate import canvas as canvas_module
from training.annotate.canvas import Canvas, checked_ring


@given(st.lists(st.tuples(st.floats(-1, 25), st.floats(-1, 19)), min_size=3, max_size=8))
def test_the_pixels_whose_middles_lie_in_a_polygon_are_painted(corners: list[tuple[float, float]]) -> None:
    canvas = Canvas((18, 24))
    canvas.fill([checked_ring(np.array(corners), (18, 24))], "x")
    outline = Polygon(corners).boundary
    rows, columns = np.indices((18, 24)) + 0.5
    crossed = np.zeros((18, 24), np.int64)  # by a ray to the right, counted apart from the code under test
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        between = (min(y0, y1) <= rows) & (rows < max(y0, y1))
        with np.errstate(all="ignore"):
            crossed += between & (x0 + (rows - y0) / (y1 - y0) * (x1 - x0) > columns)
    with np.errstate(all="ignore"):
        clear = shapely.distance(shapely.points(columns, rows), outline) > 1e-6
    np.testing.assert_array_equal(canvas.mask[clear], crossed[clear] % 2 == 1)


@given(st.integers(0, 2**16))
def test_outlines_of_objects_filled_again_are_the_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = cv2.GaussianBlur(rng.random((40, 60)), (0, 0), rng.uniform(0.3, 3)) > 0.5
    canvas = Canvas((40, 60))
    for item in find_objects(mask):
        canvas.fill([item.outline.outer, *item.outline.holes], "x")
    np.testing.assert_array_equal(canvas.mask, mask)


def test_background_cuts_what_lies_under_it() -> None:
    square = np.array([[0.0, 0], [6, 0], [6, 6], [0, 6]])
    canvas = Canvas((8, 8))
    for ring, label in ((square, "cell"), (square / 2 + 1, "Background"), (square / 6 + 2, "Ignore"), (square, "bg")):
        canvas.fill([ring], label)
        if label == "Ignore":
            assert canvas.mask.sum() == 36 - 9 + 1
    assert canvas.mask.sum() == 36


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, 0, 0, 2), (7, 0, 2, 2), (0, 0, 2, 2**70)])
def test_windows_lie_in_the_image(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="out of the image"):
        Canvas((8, 8)).window(*box)


def test_what_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas_module, "MOST_PAINTED", 1000)
    canvas = Canvas((20, 20))
    canvas.window(0, 0, 20, 20)
    canvas.window(0, 0, 20, 20)
    with pytest.raises(ValueError, match="cover more than 1,000 pixels"):
        canvas.window(0, 0, 20, 20)
    monkeypatch.setattr(canvas_module, "MOST_OUTLINE", 1000)
    with pytest.raises(ValueError, match="longer than 1,000 pixels"):
        Canvas((20, 20)).fill([np.array([[0.0, 0], [20, 20]] * 100)], "x")
