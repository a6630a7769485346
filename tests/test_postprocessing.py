"""What is done to masks: laws of each step, and that all outputs show the same."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from alserve.errors import OptionError
from alserve.objects import find_objects
from alserve.postprocessing import UNCHANGED, PostProcessing

Mask = npt.NDArray[np.bool_]
MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=15))


@given(MASKS)
def test_nothing_is_done_if_nothing_is_said(mask: Mask) -> None:
    np.testing.assert_array_equal(UNCHANGED.finish(mask), mask)
    assert UNCHANGED.describe() == {}


@given(MASKS)
def test_holes_are_filled_as_scipy_fills_them(mask: Mask) -> None:
    np.testing.assert_array_equal(PostProcessing(fill_holes=True).finish(mask), ndimage.binary_fill_holes(mask))


@given(MASKS, st.integers(0, 30))
def test_small_objects_go_and_the_others_stay(mask: Mask, least: int) -> None:
    found = PostProcessing(min_area=least).finish(mask)
    assert not (found & ~mask).any()
    areas = [item.area for item in find_objects(mask)]
    assert [item.area for item in find_objects(found)] == [area for area in areas if area >= least]


@given(MASKS, st.floats(0.5, 4))
def test_smooth_edges_are_a_level_line_of_scipys_gaussian(mask: Mask, deviation: float) -> None:
    found = PostProcessing(smooth=deviation).finish(mask)
    blurred = ndimage.gaussian_filter(mask.astype(np.float64), deviation, mode="nearest", truncate=3)
    clear = np.abs(blurred - 0.5) > 0.02
    np.testing.assert_array_equal(found[clear], blurred[clear] > 0.5)


def test_smoothing_takes_off_what_is_narrow_and_keeps_straight_edges() -> None:
    mask = np.zeros((60, 60), np.bool_)
    mask[:, :30] = True
    mask[20, 30:45] = True  # a hair
    found = PostProcessing(smooth=3).finish(mask)
    assert not found[:, 32:].any()
    far = np.r_[:8, 33:60]  # from the hair
    np.testing.assert_array_equal(found[far], mask[far])


def test_all_that_is_said_is_noted() -> None:
    said = {
        "threshold": 0.3,
        "smooth": 1.5,
        "fill_holes": True,
        "min_area": 20,
        "split_touching": 8,
        "um_per_pixel": 0.5,
    }
    assert PostProcessing(**said).describe() == said


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"threshold": 1.1}, "threshold 1.1: it is a probability, from 0 to 1"),
        ({"threshold": float("nan")}, "threshold nan"),
        ({"smooth": -1}, "smooth -1: give 0 to 20 pixels"),
        ({"smooth": float("nan")}, "smooth nan"),
        ({"smooth": 1e9}, "smooth 1000000000.0: give 0 to 20"),
        ({"min_area": -5}, "min_area -5: give 0 pixels or more"),
        ({"split_touching": -1}, "split_touching -1: give 0 pixels or more"),
        ({"split_touching": float("nan")}, "split_touching nan"),
        ({"um_per_pixel": 0}, "um_per_pixel 0: give more than 0 micrometres"),
        ({"um_per_pixel": float("inf")}, "um_per_pixel inf"),
        ({"um_per_pixel": "automatic"}, "um_per_pixel automatic: give more than 0 micrometres, or auto"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(OptionError, match=fault):
        PostProcessing(**values)
