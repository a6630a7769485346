"""The threshold search against the plain loop that it replaces."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alserve.measure.metrics import iou
from training.learning.threshold import FALSE_ALARM, THRESHOLDS, best_threshold, mean_ious, otsu_threshold

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


Case = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def counts(probability: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> list[float]:
    """What an image counts, by the words of `best_threshold`."""
    if truth.any():
        return plain(probability, truth)
    return [1 - FALSE_ALARM if (probability > np.float32(threshold)).any() else 1 for threshold in THRESHOLDS]


@given(st.lists(st.tuples(PROBABILITIES, TRUTHS), min_size=1, max_size=6))
def test_the_threshold_is_the_nearest_to_one_half_within_a_standard_error(cases: list[Case]) -> None:
    found = best_threshold([case[0] for case in cases], [case[1] for case in cases]).value
    if sum(case[1].any() for case in cases) < 2:
        assert found == 0.5
        return
    scores = np.array([counts(*case) for case in cases])
    lost = scores[:, [scores.mean(axis=0).argmax()]] - scores
    error = lost.std(axis=0, ddof=1) / np.sqrt(len(cases))
    near = np.abs(THRESHOLDS - 0.5)
    assert (lost.mean(axis=0) <= error + 1e-9)[found == THRESHOLDS].all()
    assert not (lost.mean(axis=0) <= error - 1e-9)[near < abs(found - 0.5) - 1e-9].any()


def test_many_images_that_want_another_threshold_get_it() -> None:
    rng = np.random.default_rng(0)
    truths = [rng.random((8, 8)) < 0.4 for _ in range(20)]
    probabilities = [np.where(truth, 0.4, 0.2).astype(np.float32) for truth in truths]
    found = best_threshold(probabilities, truths)
    assert 0.2 <= found.value < 0.4
    assert found.reason.startswith("20 held-out images with foreground, 0 without: the best is 0.")
    assert best_threshold(probabilities[:1], truths[:1]).value == 0.5


def test_silence_is_not_rewarded() -> None:
    """Empty images want a high threshold, which would lose the objects of the others."""
    objects = [np.arange(64).reshape(8, 8) < 20 for _ in range(4)]
    seen = [np.where(truth, 0.6, 0.1).astype(np.float32) for truth in objects]
    empty = [np.zeros((8, 8), np.bool_)] * 8
    alarms = [np.full((8, 8), 0.7, np.float32)] * 8
    assert best_threshold(seen + alarms, objects + empty).value < 0.6


def test_false_alarms_count_where_they_cost_no_object() -> None:
    objects = [np.arange(64).reshape(8, 8) < 20 for _ in range(4)]
    seen = [np.where(truth, 0.9, 0.1).astype(np.float32) for truth in objects]
    alarms = [np.full((8, 8), 0.7, np.float32)] * 8
    found = best_threshold(seen + alarms, objects + [np.zeros((8, 8), np.bool_)] * 8).value
    assert 0.7 <= found < 0.9


def test_otsu_parts_two_heaps() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(0.2, 0.03, 3000), rng.normal(0.7, 0.03, 1000)
    images = [part.astype(np.float32).clip(0, 1).reshape(20, -1) for part in (low, high)]
    assert 0.28 < otsu_threshold(images).value < 0.62


@given(arrays(np.uint8, (5, 7), elements=st.integers(0, 255) | st.sampled_from([0, 3, 200])))
def test_otsu_is_that_of_opencv(levels: npt.NDArray[np.uint8]) -> None:
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    images = (part.astype(np.float32) / 255 for part in (levels[:2], levels[2:]))
    assert otsu_threshold(images).value == np.clip(level / 255, THRESHOLDS[0], THRESHOLDS[-1])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_otsu_of_one_value_stays_in_range(value: float) -> None:
    assert THRESHOLDS[0] <= otsu_threshold([np.full((4, 4), value, np.float32)]).value <= THRESHOLDS[-1]
