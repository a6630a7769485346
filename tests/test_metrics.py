"""The laws of Dice and IoU."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from training.metrics import dice, iou

Mask = npt.NDArray[np.bool_]
MASKS = arrays(np.bool_, (3, 4))


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
