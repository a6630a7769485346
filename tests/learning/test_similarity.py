"""Neighbours by colour: the divergence as published, within a class, for any k; and nothing counted twice."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture

from training.learning.similarity import (
    count_colours,
    describe,
    describe_once,
    distances,
    histograms,
    neighbours,
    within_reach,
)


def grey(value: int, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.full((*shape, 3), value, np.uint8)


def divergence(first: np.ndarray, second: np.ndarray) -> float:
    middle = (first + second) / 2
    return float((first * np.log(first / middle)).sum() + (second * np.log(second / middle)).sum()) / 2


def described(*images: np.ndarray) -> np.ndarray:
    return histograms(describe(images))


def test_every_pixel_is_counted_once_a_channel() -> None:
    found = count_colours(picture(64, 96))
    assert found.shape == (3, 256)
    assert (found.sum(axis=1) == 128 * 192).all()


def test_histograms_are_distributions() -> None:
    (found,) = described(picture(50, 70))
    assert found.shape == (3, 256)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("value", [0, 1, 100, 180, 255])
def test_a_plain_image_fills_one_bin(value: int) -> None:
    (found,) = described(grey(value))
    assert (found.argmax(axis=1) == value).all()
    assert found.max(axis=1) == pytest.approx(1)


def test_saturation_is_raised() -> None:
    pale = grey(128)
    pale[..., 0] = 148
    red, green, blue = described(pale)[0].argmax(axis=1)
    luminance = 0.2989 * 148 + (0.587 + 0.114) * 128
    assert abs(red - (3 * 148 - 2 * luminance)) <= 1
    assert abs(green - (3 * 128 - 2 * luminance)) <= 1
    assert green == blue


def test_distances_are_the_divergences_of_the_published_formula() -> None:
    images = [picture(40, 60, seed) for seed in range(4)]
    known = described(*images)
    expected = np.zeros((4, 4))
    for channel in range(3):
        one = np.array([[divergence(a[channel], b[channel]) for b in known] for a in known])
        expected += one / one.sum()
    np.testing.assert_allclose(distances(describe(images)), expected, rtol=1e-6, atol=1e-12)


def test_distances_are_symmetric_and_zero_between_twins() -> None:
    found = distances(describe([picture(seed=0), picture(seed=1), picture(seed=0)]))
    np.testing.assert_allclose(found, found.T)
    assert (np.diag(found) == 0).all()
    assert found[0, 2] == pytest.approx(0, abs=1e-9)
    assert found[0, 1] > 0.1


def test_twins_only() -> None:
    assert (distances(describe([picture()] * 3)) == 0).all()


def test_one_image_only() -> None:
    assert distances(describe([picture()])).tolist() == [[0]]


def test_neighbours_are_the_nearest_of_the_same_class() -> None:
    images = [grey(value) for value in (10, 200, 12, 14, 202, 90)]
    labels = [0, 1, 0, 1, 1, 0]
    for index, found in enumerate(neighbours(describe(images), labels, 5)):
        assert index not in found
        assert sorted([*found, index]) == [i for i, label in enumerate(labels) if label == labels[index]]
    mixed = [picture(seed=seed) for seed in (0, 1, 0, 2)]
    assert [found[0] for found in neighbours(describe(mixed), [0] * 4, 1)][0:3:2] == [2, 0]


@pytest.mark.parametrize(("k", "count"), [(0.25, 2), (0.5, 4), (0.01, 1), (1, 1), (3, 3), (8, 7), (40, 7)])
def test_k_is_a_count_or_a_fraction_of_the_class(k: float, count: int) -> None:
    images = [picture(20, 30, seed) for seed in range(10)]
    found = neighbours(describe(images), [0] * 8 + [1, 2], k)
    assert [len(row) for row in found] == [count] * 8 + [0, 0]


def test_equally_near_images_come_in_their_order() -> None:
    counts = describe([picture(seed=0), picture(seed=1), *[picture(seed=2)] * 4])
    assert neighbours(counts, [0] * 6, 3)[2:] == [[3, 4, 5], [2, 4, 5], [2, 3, 5], [2, 3, 4]]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.floats(0.05, 20))
def test_neighbours_of_any_classes_and_any_k(labels: list[int], k: float) -> None:
    rng = np.random.default_rng(len(labels))
    counts = rng.integers(0, 9, (len(labels), 3, 256)).astype(np.uint32)
    for index, found in enumerate(neighbours(counts, labels, k)):
        others = [i for i, label in enumerate(labels) if label == labels[index] and i != index]
        wanted = max(1, round(k * (len(others) + 1))) if k < 1 else int(k)
        between = distances(counts[sorted([*others, index])])[sorted([*others, index]).index(index)]
        assert len(set(found)) == len(found) == min(wanted, len(others))
        assert set(found) <= set(others)
        near = [between[sorted([*others, index]).index(other)] for other in found]
        assert near == sorted(between)[1 : len(found) + 1]


def drawn(times: list[int]) -> Iterator[np.ndarray]:
    for seed in range(5):
        times.append(seed)
        yield picture(20, 30, seed)


def test_colours_are_counted_once(tmp_path: Path) -> None:
    times: list[int] = []
    first = describe_once(drawn(times), tmp_path / "sub", "these")
    again = describe_once(drawn(times), tmp_path / "sub", "these")
    np.testing.assert_array_equal(first, describe(drawn([])))
    np.testing.assert_array_equal(first, again)
    assert times == [0, 1, 2, 3, 4]
    assert len(list((tmp_path / "sub").iterdir())) == 1
    describe_once(drawn(times), tmp_path / "sub", "others")
    describe_once(drawn(times), tmp_path / "elsewhere", "these")
    assert len(times) == 15


def test_more_neighbours_begin_with_the_fewer() -> None:
    images = [picture(20, 30, seed) for seed in range(6)]
    few, many = (neighbours(describe(images), [0] * 6, k) for k in (2, 4))
    assert [row[:2] for row in many] == few


def test_only_images_beside_a_labelled_one_are_within_reach() -> None:
    nearest = [[1], [2], [1], [0, 4], []]
    assert within_reach([0, 1, 2, 3, 4], [4], nearest) == [3]
    assert within_reach([0, 1, 3, 4], [2], nearest) == [1]
    assert within_reach([0, 1], [], nearest) == []
