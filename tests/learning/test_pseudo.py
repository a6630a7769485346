"""Pseudo-masks: the threshold in the middle, targets and weights of the loss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from training.learning.pseudo import foreground, pixel_weights, pseudo_mask, target

probabilities = arrays.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32))


@given(probabilities, st.floats(0.05, 0.99))
def test_the_threshold_lies_in_the_middle_and_the_order_stays(probability: np.ndarray, threshold: float) -> None:
    found = pseudo_mask(probability, threshold)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(foreground(found), probability > threshold)
    assert (np.diff(found.ravel()[probability.ravel().argsort(kind="stable")].astype(int)) >= 0).all()


def test_a_threshold_of_one_half_keeps_the_probability() -> None:
    probability = np.linspace(0, 1, 1001, dtype=np.float32)[None]
    assert np.abs(pseudo_mask(probability, 0.5) / 255 - probability).max() < 1 / 255


def test_both_ends_stay_whatever_the_threshold() -> None:
    ends = np.array([[0, 1]], np.float32)
    for threshold in (0.05, 0.3, 0.99):
        assert pseudo_mask(ends, threshold).tolist() == [[0, 255]]


GREY = np.array([[0, 63, 64, 127, 128, 191, 192, 255]], np.uint8)


def test_targets() -> None:
    assert target(GREY, "hard").tolist() == [[0, 0, 0, 0, 255, 255, 255, 255]]
    assert target(GREY, "soft") is GREY


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ("weighted", [255, 129, 127, 1, 1, 127, 129, 255]),
        ("certain", [255, 255, 0, 0, 0, 0, 255, 255]),
    ],
)
def test_pixel_weights(pixels: str, expected: list[int]) -> None:
    found = pixel_weights(GREY, pixels)  # type: ignore[arg-type]
    assert found is not None
    assert found.dtype == np.uint8
    assert found.tolist() == [expected]


def test_all_pixels_alike() -> None:
    assert pixel_weights(GREY, "all") is None
