"""The laws of the one resize rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alserve.geometry import MAX_ASPECT, STRIDE, resize, resize_mask, working_shape

sides = st.integers(1, 20_000)
short_sides = st.integers(1, 32).map(lambda strides: strides * STRIDE)
small = st.integers(1, 200)


@given(sides, sides, short_sides)
def test_shape_is_of_whole_strides_and_its_short_side_is_the_wanted_one(height: int, width: int, short: int) -> None:
    shape = working_shape(height, width, short)
    assert all(side % STRIDE == 0 for side in shape)
    assert min(shape) == short
    assert max(shape) <= MAX_ASPECT * short


@given(sides, sides, short_sides)
def test_aspect_is_kept_to_half_a_stride(height: int, width: int, short: int) -> None:
    aspect = min(max(height, width) / min(height, width), MAX_ASPECT)
    assert abs(max(working_shape(height, width, short)) - short * aspect) <= STRIDE / 2


@given(sides, sides, short_sides)
def test_transposing_commutes(height: int, width: int, short: int) -> None:
    assert working_shape(width, height, short) == working_shape(height, width, short)[::-1]


@given(sides, short_sides)
def test_square_stays_square(side: int, short: int) -> None:
    assert working_shape(side, side, short) == (short, short)


@given(small, small, small, small, st.integers(0, 255))
def test_a_flat_image_stays_flat(height: int, width: int, rows: int, columns: int, level: int) -> None:
    flat = np.full((height, width, 3), level, np.uint8)
    found = resize(flat, (rows, columns))
    assert found.shape == (rows, columns, 3)
    assert found.dtype == np.uint8
    assert (found == level).all()


@given(small, small, small, small)
def test_values_stay_in_range(height: int, width: int, rows: int, columns: int) -> None:
    values = np.random.default_rng(height * width).random((height, width)).astype(np.float32)
    found = resize(values, (rows, columns))
    assert found.dtype == np.float32
    assert values.min() - 1e-6 <= found.min() <= found.max() <= values.max() + 1e-6


def test_same_shape_gives_the_input_itself() -> None:
    array = np.zeros((5, 7, 3), np.uint8)
    assert resize(array, (5, 7)) is array


def test_shrinking_averages_areas() -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert set(np.unique(resize(checks, (8, 8)))) <= {127, 128}


@pytest.mark.parametrize("scale", [2, 3, 5])
def test_mask_enlarged_and_shrunk_back_is_the_mask(scale: int) -> None:
    mask = np.random.default_rng(0).random((20, 30)) > 0.5
    big = np.kron(mask, np.ones((scale, scale), bool))
    np.testing.assert_array_equal(resize_mask(big, (20, 30)), mask)


def test_mask_pixel_needs_half_of_its_area() -> None:
    mask = np.zeros((4, 8), bool)
    mask[:2, :4] = True  # half of the left pixel
    mask[0, 4:7] = True  # three of sixteen in the right one
    np.testing.assert_array_equal(resize_mask(mask, (1, 2)), [[True, False]])


@given(small, small, small, small, st.data())
def test_a_mask_with_foreground_never_becomes_empty(
    height: int, width: int, rows: int, columns: int, data: st.DataObject
) -> None:
    """Nor does one without get any; what stays is where the foreground was."""
    mask = np.zeros((height, width), bool)
    assert not resize_mask(mask, (rows, columns)).any()
    places = data.draw(
        st.lists(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)), min_size=1, max_size=3)
    )
    for row, column in places:
        mask[row, column] = True
    found = resize_mask(mask, (rows, columns))
    assert found.shape == (rows, columns)
    assert found.any()
    reach = np.array([max(height / rows, 1), max(width / columns, 1)])
    for pixel in np.argwhere(found):
        centre = (pixel + 0.5) * (height / rows, width / columns) - 0.5
        assert (np.abs(np.array(places) - centre) <= reach).all(axis=1).any()


def test_an_object_smaller_than_half_a_pixel_is_a_single_pixel() -> None:
    mask = np.zeros((40, 40), bool)
    mask[13, 30] = mask[14, 31] = True
    np.testing.assert_array_equal(np.argwhere(resize_mask(mask, (10, 10))), [[3, 7]])
