"""The laws of the measures, values worked out by hand, and what other libraries make of the same numbers."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, bootstrap
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_calibration_error

from alserve.measure import metrics
from alserve.measure.metrics import BINS, BinnedScores, area_under_roc, dice, iou, mean_interval, share_interval

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float32]
MASKS = arrays(np.bool_, (3, 4))

GRID = 32
LEVELS = arrays(np.float32, (3, 4), elements=st.integers(0, GRID - 1).map(lambda level: level / GRID))
"""Values far enough apart for bins of their own, even squared; below 1, which torchmetrics puts into a 16th bin."""


@given(MASKS, MASKS)
def test_laws(first: Mask, second: Mask) -> None:
    for measure in (dice, iou):
        assert measure(first, second) == measure(second, first)
        assert 0 <= measure(first, second) <= 1
        assert measure(first, first) == 1
        assert (measure(first, second) == 1) == bool((first == second).all())
    assert dice(first, second) == pytest.approx(2 * iou(first, second) / (1 + iou(first, second)))


def test_values() -> None:
    first, second = np.array([[True, True, False, False]]), np.array([[False, True, True, True]])
    assert dice(first, second) == pytest.approx(2 / 5)
    assert iou(first, second) == pytest.approx(1 / 4)


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((2, 2), np.bool_)
    assert dice(empty, empty) == iou(empty, empty) == 1
    assert dice(empty, ~empty) == iou(empty, ~empty) == 0


@given(LEVELS, MASKS)
def test_average_precision_and_calibration_are_those_of_torchmetrics(values: Values, right: Mask) -> None:
    binned = BinnedScores.of(values, right)
    known, truth = torch.from_numpy(values.ravel()), torch.from_numpy(right.ravel().astype(np.int64))
    assert binned.calibration_error() == pytest.approx(float(binary_calibration_error(known, truth)), abs=1e-6)
    if right.any():
        expected = float(binary_average_precision(known, truth, thresholds=None))
        assert binned.average_precision() == pytest.approx(expected, abs=1e-6)
    else:
        assert binned.average_precision() is None


@given(MASKS)
def test_a_perfect_map_has_precision_1_and_no_calibration_error(truth: Mask) -> None:
    binned = BinnedScores.of(truth.astype(np.float32), truth)
    assert binned.calibration_error() == 0
    assert binned.average_precision() == (1 if truth.any() else None)


@given(LEVELS, MASKS)
def test_average_precision_knows_the_order_alone(values: Values, truth: Mask) -> None:
    squared, plain = (BinnedScores.of(map_, truth).average_precision() for map_ in (values**2, values))
    assert squared == (None if plain is None else pytest.approx(plain))


@given(LEVELS, MASKS, LEVELS, MASKS)
def test_the_counts_of_two_images_add_up(one: Values, its: Mask, other: Values, others: Mask) -> None:
    added = BinnedScores.of(one, its)
    added.add(BinnedScores.of(other, others))
    whole = BinnedScores.of(np.stack([one, other]), np.stack([its, others]))
    np.testing.assert_array_equal(added.right, whole.right)
    np.testing.assert_array_equal(added.wrong, whole.wrong)
    assert added.calibration_error() == pytest.approx(whole.calibration_error())


def test_average_precision_by_hand() -> None:
    values = np.array([0.9, 0.8, 0.8, 0.3, 0.1], np.float32)
    truth = np.array([True, True, False, False, True])
    # from the top: 1 of 1 at recall 1/3, 2 of 3 at 2/3, and 3 of 5 at 1
    assert BinnedScores.of(values, truth).average_precision() == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_calibration_error_by_hand() -> None:
    values = np.array([0.95, 0.95, 0.95, 0.95, 0.5], np.float32)
    right = np.array([True, True, True, False, True])
    assert BinnedScores.of(values, right).calibration_error() == pytest.approx(4 / 5 * (0.95 - 0.75) + 1 / 5 * 0.5)


def test_a_map_of_one_value_knows_nothing() -> None:
    truth = np.arange(100).reshape(10, 10) < 30
    binned = BinnedScores.of(np.full((10, 10), 0.3, np.float32), truth)
    assert binned.average_precision() == pytest.approx(0.3)
    assert binned.calibration_error() == pytest.approx(0, abs=1e-6)


def test_close_values_share_a_bin() -> None:
    values = np.array([0.5, 0.5 + 0.1 / BINS], np.float32)
    truth = np.array([True, False])
    assert (
        BinnedScores.of(values, truth).average_precision() == BinnedScores.of(values, ~truth).average_precision() == 0.5
    )


def test_nothing_counted() -> None:
    assert BinnedScores().average_precision() is None
    assert BinnedScores().calibration_error() is None


def test_interval_of_a_mean_is_the_bootstraps() -> None:
    values = np.random.default_rng(3).beta(8, 2, 60)
    low, high = mean_interval(list(values)) or (1, 0)
    expected = bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    spread = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(expected.low, abs=0.2 * spread)
    assert high == pytest.approx(expected.high, abs=0.2 * spread)
    assert low < values.mean() < high


def test_interval_of_few_values() -> None:
    values = [0.2, 0.4, 0.9]
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5)
    assert mean_interval([0.5]) is mean_interval([]) is None


def test_the_bootstrap_draws_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(np.random.default_rng(3).beta(8, 2, 60))
    whole = mean_interval(values)
    monkeypatch.setattr(metrics, "BLOCK", 700)
    assert mean_interval(values) == pytest.approx(whole)


@given(st.integers(1, 300), st.data())
def test_interval_of_a_share_is_wilsons(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, total))
    low, high = share_interval(count, total) or (1, 0)
    expected = binomtest(count, total).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= count / total + 1e-12
    assert count / total - 1e-12 <= high <= 1
    assert low < high


def test_interval_of_no_share() -> None:
    assert share_interval(0, 0) is None


SCORED = st.lists(st.tuples(st.integers(0, 6).map(lambda level: level / 6), st.booleans()), min_size=1, max_size=40)
"""Scores with ties, and whether each is a positive."""


@given(SCORED)
def test_area_under_roc_is_the_share_of_pairs_in_order_and_torchmetrics(pairs: list[tuple[float, bool]]) -> None:
    scores, positive = [score for score, _ in pairs], [truth for _, truth in pairs]
    high, low = ([score for score, truth in pairs if truth is wanted] for wanted in (True, False))
    found = area_under_roc(scores, positive)
    if not high or not low:
        assert found is None
        return
    won = [(one > other) + (one == other) / 2 for one in high for other in low]
    assert found == pytest.approx(np.mean(won))
    assert found == pytest.approx(float(binary_auroc(torch.tensor(scores), torch.tensor(positive).int())), abs=1e-6)
    assert area_under_roc([-score for score in scores], positive) == pytest.approx(1 - found)
    assert area_under_roc([score**3 for score in scores], positive) == pytest.approx(found)
    assert area_under_roc([0.3] * len(scores), positive) == 0.5
