"""What a working size lets be seen."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.learning.working_size import SCALES, advise, best_dice, best_dice_by_size


def spots(radius: int, side: int = 512) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros((side, side), np.uint8)
    for x, y in ((100, 130), (301, 402), (77, 413)):
        cv2.circle(mask, (x, y), radius, 1, -1)
    return mask.astype(np.bool_)


@given(st.integers(0, 60), st.sampled_from([64, 128, 256, 512]))
def test_larger_objects_and_larger_sizes_are_seen_better(radius: int, side: int) -> None:
    assert 0 <= best_dice(spots(radius), side) <= 1
    assert best_dice(spots(radius + 20), side) >= best_dice(spots(radius), side) - 0.05
    assert best_dice(spots(radius), 2 * side) >= best_dice(spots(radius), side) - 0.05


def test_objects_that_are_seen_need_no_advice() -> None:
    assert best_dice(spots(40), 256) > 0.97
    assert advise([best_dice_by_size(spots(40), 256)] * 3, 256) is None
    assert advise([], 256) is None
    assert best_dice(np.zeros((50, 60), np.bool_), 64) == 1


def test_objects_that_are_not_seen_are_told_with_the_size_that_shows_them() -> None:
    found = best_dice_by_size(spots(4), 64)
    assert found[0] < 0.3
    assert len(found) == len(SCALES)
    said = advise([found], 64) or ""
    assert f"would reach a Dice of {100 * found[0]:.0f} % on the new masks" in said
    assert f"--short-side 256 allows {100 * found[-1]:.0f} %, and takes 16 times as long" in said
    assert "--short-side 128 allows" in (advise([(0.5, 0.8, 0.96, 0.99, 1.0)], 64) or "")


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2000, 3)])
def test_masks_of_any_shape(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.bool_)
    mask[0, 0] = True
    assert all(0 <= each <= 1 for each in best_dice_by_size(mask, 64))
