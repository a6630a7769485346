"""Objects that touch, told apart: laws of the parts, discs whose number is known, and time and memory."""

import math
import time
import tracemalloc

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from annotations import MASKS, drawn_shapes
from hypothesis import given
from hypothesis import strategies as st

from alserve.objects import find_objects
from alserve.touching import part

Mask = npt.NDArray[np.bool_]


def discs(shape: tuple[int, int], *each: tuple[float, float, float]) -> Mask:
    """Discs of these middles and radii: x, y, radius."""
    rows, columns = np.indices(shape)
    return np.any([(columns - x) ** 2 + (rows - y) ** 2 <= radius**2 for x, y, radius in each], axis=0)


@given(MASKS | drawn_shapes(), st.floats(0.1, 12))
def test_parts_are_connected_and_together_the_mask(mask: Mask, narrowest: float) -> None:
    numbers = part(mask, narrowest)
    np.testing.assert_array_equal(numbers > 0, mask)
    assert sorted(np.unique(numbers[mask])) == list(range(1, numbers.max(initial=0) + 1))
    _, connected = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    for number in range(1, numbers.max(initial=0) + 1):
        assert cv2.connectedComponents((numbers == number).astype(np.uint8), connectivity=8)[0] == 2
        assert len(np.unique(connected[numbers == number])) == 1
    np.testing.assert_array_equal(part(mask, narrowest), numbers)


def test_a_mask_without_background_is_one_object() -> None:
    """OpenCV's distance to a background that is not there is another number from call to call."""
    full = np.ones((33, 57), np.bool_)
    assert all((part(full, 0.1) == 1).all() for _ in range(50))


@given(MASKS | drawn_shapes(), st.floats(0.1, 12))
def test_objects_of_parts_are_the_mask_in_reading_order(mask: Mask, narrowest: float) -> None:
    whole = np.zeros(mask.shape, np.int64)
    firsts = []
    for place, item in enumerate(find_objects(mask, narrowest), start=1):
        assert item.number == place
        left, top, width, height = item.box
        window = whole[top : top + height, left : left + width]
        assert not window[item.mask].any()
        window[item.mask] = place
        assert item.mask[0].any()
        assert item.mask[:, 0].any()
        assert len(item.outline.outer) >= 4
        firsts.append((top, left + int(item.mask[0].argmax())))
    np.testing.assert_array_equal(whole > 0, mask)
    assert firsts == sorted(firsts)
    assert whole.max(initial=0) == part(mask, narrowest).max(initial=0)


@given(st.floats(0.5, 40), st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 30))
def test_one_disc_is_never_parted(radius: float, x: float, y: float, narrowest: float) -> None:
    side = int(2 * radius) + 6
    mask = discs((side, side), (side / 2 + x, side / 2 + y, radius))
    assert len(list(find_objects(mask, narrowest))) <= 1


@given(st.floats(8, 25), st.floats(1, 2), st.floats(0, 2 * math.pi), st.floats(-0.2, 0))
def test_two_discs_that_touch_are_parted_in_two_of_their_own_areas(
    radius: float, ratio: float, angle: float, overlap: float
) -> None:
    other = radius * ratio
    apart = radius + other + overlap * min(radius, other)
    x, y = 100 + apart * math.cos(angle), 100 + apart * math.sin(angle)
    each = [discs((240, 240), disc) for disc in ((100, 100, radius), (x, y, other))]
    mask = (each[0] | each[1]).astype(np.uint8)
    cv2.line(mask, (100, 100), (round(x), round(y)), 1)  # else they might miss each other
    found = list(find_objects(mask > 0, 2 * min(radius, other) - 3))
    assert len(found) == 2
    areas = sorted(item.area for item in found)
    expected = sorted(int(one.sum()) for one in each)
    assert areas == pytest.approx(expected, rel=0.12, abs=6)


@pytest.mark.parametrize(
    ("mask", "number"),
    [
        (np.ones((30, 40), np.bool_), 1),
        (np.zeros((30, 40), np.bool_), 0),
        (np.eye(30, dtype=np.bool_), 1),
        (discs((60, 200), *((20 + 4 * step, 30, 12) for step in range(40))), 1),  # a bar
        (discs((60, 200), *((20 + 23 * step, 30, 12) for step in range(7))), 7),  # a row of cells
        (discs((60, 80), (30, 30, 20), (51, 30, 2)), 1),  # a bump
        (discs((80, 80), (40, 40, 30)) & ~discs((80, 80), (40, 40, 20)), 1),  # a ring
    ],
)
def test_what_is_one_object_and_what_is_not(mask: Mask, number: int) -> None:
    assert part(mask, 8).max(initial=0) == number


def test_rough_edges_part_nothing() -> None:
    rows, columns = np.indices((120, 120)) - 60
    for seed in range(10):
        rng = np.random.default_rng(seed)
        noise = cv2.GaussianBlur(rng.normal(size=(120, 120)), (0, 0), 2) * 10
        mask = np.hypot(rows, columns) + noise < 40
        mask = discs((120, 120), (60, 60, 30)) | mask
        large = [item for item in find_objects(mask, 12) if item.area > 50]
        assert len(large) == 1


def test_a_hundred_thousand_cells_take_seconds() -> None:
    rng = np.random.default_rng(0)
    cells = np.zeros((3800, 3800), np.uint8)
    for row in range(317):
        for column in range(317):
            x, y = (12 * place + 5 + int(rng.integers(2)) for place in (column, row))
            cv2.circle(cells, (x, y), 5, 1, -1)
    tracemalloc.start()
    began = time.process_time()
    numbers = part(cells > 0, 6)
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert numbers.max() == pytest.approx(317 * 317, rel=0.01)
    assert seconds < 30
    assert peak < 60 * cells.size
    began = time.process_time()
    assert sum(item.area for item in find_objects(cells > 0, 6)) == cells.sum()
    assert time.process_time() - began < 60
