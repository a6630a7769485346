"""The threshold search against the plain loop that it replaces."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alserve.measure.metrics import iou
from training.learning.threshold import THRESHOLDS, best_threshold, mean_ious, otsu_threshold

SHAPE = (3, 4)
VALUES = st.one_of(st.floats(0, 1, width=32), st.sampled_from([np.float32(value) for value in THRESHOLDS]))
PROBABILITIES = arrays(np.float32, SHAPE, elements=VALUES)
TRUTHS = arrays(np.bool_, SHAPE)


def plain(probability: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> list[float]:
    masks = [probability > float(threshold) for threshold in THRESHOLDS]
    return [(iou(mask, truth) + iou(~mask, ~truth)) / 2 for mask in masks]


def test_the_thresholds_are_those_published() -> None:
    assert THRESHOLDS.tolist() == [number / 100 for number in range(5, 100)]


@given(PROBABILITIES, TRUTHS)
def test_mean_ious_equal_those_of_the_masks(probability: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> None:
    np.testing.assert_allclose(mean_ious(probability, truth), plain(probability, truth), atol=1e-12)


@given(st.lists(st.tuples(PROBABILITIES, TRUTHS), min_size=1, max_size=3))
def test_no_threshold_is_better_than_the_best(
    cases: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]],
) -> None:
    found = best_threshold([case[0] for case in cases], [case[1] for case in cases])
    means = np.mean([plain(*case) for case in cases], axis=0)
    assert found in THRESHOLDS
    assert means[found == THRESHOLDS] == pytest.approx(means.max())


def test_the_middle_of_equally_good_thresholds() -> None:
    probability = np.array([[0.2, 0.2, 0.6, 0.6]], np.float32)
    assert best_threshold([probability], [probability > 0.5]) == pytest.approx(0.4, abs=0.011)


def test_every_image_counts_the_same() -> None:
    """One large image that wants 0.2, two small ones that want 0.8."""
    large, small = np.full((50, 50), 0.3, np.float32), np.full((2, 2), 0.7, np.float32)
    truths = [np.ones((50, 50), np.bool_), np.zeros((2, 2), np.bool_), np.zeros((2, 2), np.bool_)]
    assert best_threshold([large, small, small], truths) > 0.7


def test_otsu_parts_two_heaps() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(0.2, 0.03, 3000), rng.normal(0.7, 0.03, 1000)
    images = [part.astype(np.float32).clip(0, 1).reshape(20, -1) for part in (low, high)]
    assert 0.28 < otsu_threshold(images) < 0.62


@given(arrays(np.uint8, (5, 7), elements=st.integers(0, 255) | st.sampled_from([0, 3, 200])))
def test_otsu_is_that_of_opencv(levels: npt.NDArray[np.uint8]) -> None:
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    images = (part.astype(np.float32) / 255 for part in (levels[:2], levels[2:]))
    assert otsu_threshold(images) == np.clip(level / 255, THRESHOLDS[0], THRESHOLDS[-1])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_otsu_of_one_value_stays_in_range(value: float) -> None:
    assert THRESHOLDS[0] <= otsu_threshold([np.full((4, 4), value, np.float32)]) <= THRESHOLDS[-1]
