"""Neighbours by colour: the divergence as published, within a class, for any k."""

import numpy as np
import pytest
from pictures import picture

from training.similarity import distances, histograms, neighbours, within_reach


def grey(value: int, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.full((*shape, 3), value, np.uint8)


def divergence(first: np.ndarray, second: np.ndarray) -> float:
    middle = (first + second) / 2
    return float((first * np.log(first / middle)).sum() + (second * np.log(second / middle)).sum()) / 2


def test_histograms_are_distributions() -> None:
    found = histograms(picture(50, 70))
    assert found.shape == (3, 256)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("value", [0, 1, 100, 180, 255])
def test_a_plain_image_fills_one_bin(value: int) -> None:
    found = histograms(grey(value))
    assert (found.argmax(axis=1) == value).all()
    assert found.max(axis=1) == pytest.approx(1)


def test_saturation_is_raised() -> None:
    pale = grey(128)
    pale[..., 0] = 148
    red, green, blue = histograms(pale).argmax(axis=1)
    luminance = 0.2989 * 148 + (0.587 + 0.114) * 128
    assert abs(red - (3 * 148 - 2 * luminance)) <= 1
    assert abs(green - (3 * 128 - 2 * luminance)) <= 1
    assert green == blue


def test_distances_are_the_divergences_of_the_published_formula() -> None:
    images = [picture(40, 60, seed) for seed in range(4)]
    described = [histograms(image) for image in images]
    expected = np.zeros((4, 4))
    for channel in range(3):
        one = np.array([[divergence(a[channel], b[channel]) for b in described] for a in described])
        expected += one / one.sum()
    np.testing.assert_allclose(distances(images), expected, rtol=1e-6, atol=1e-12)


def test_distances_are_symmetric_and_zero_between_twins() -> None:
    found = distances([picture(seed=0), picture(seed=1), picture(seed=0)])
    np.testing.assert_allclose(found, found.T)
    assert (np.diag(found) == 0).all()
    assert found[0, 2] == pytest.approx(0, abs=1e-9)
    assert found[0, 1] > 0.1


def test_twins_only() -> None:
    assert (distances([picture()] * 3) == 0).all()


def test_neighbours_are_the_nearest_of_the_same_class() -> None:
    images = [grey(value) for value in (10, 200, 12, 14, 202, 90)]
    labels = [0, 1, 0, 1, 1, 0]
    for index, found in enumerate(neighbours(images, labels, 5)):
        assert index not in found
        assert sorted([*found, index]) == [i for i, label in enumerate(labels) if label == labels[index]]
    mixed = [picture(seed=seed) for seed in (0, 1, 0, 2)]
    assert [found[0] for found in neighbours(mixed, [0] * 4, 1)][0:3:2] == [2, 0]


@pytest.mark.parametrize(("k", "count"), [(0.25, 2), (0.5, 4), (0.01, 1), (1, 1), (3, 3), (8, 7), (40, 7)])
def test_k_is_a_count_or_a_fraction_of_the_class(k: float, count: int) -> None:
    images = [picture(20, 30, seed) for seed in range(10)]
    found = neighbours(images, [0] * 8 + [1, 2], k)
    assert [len(row) for row in found] == [count] * 8 + [0, 0]


def test_more_neighbours_begin_with_the_fewer() -> None:
    images = [picture(20, 30, seed) for seed in range(6)]
    few, many = neighbours(images, [0] * 6, 2), neighbours(images, [0] * 6, 4)
    assert [row[:2] for row in many] == few


def test_only_images_beside_a_labelled_one_are_within_reach() -> None:
    nearest = [[1], [2], [1], [0, 4], []]
    assert within_reach([0, 1, 2, 3, 4], [4], nearest) == [3]
    assert within_reach([0, 1, 3, 4], [2], nearest) == [1]
    assert within_reach([0, 1], [], nearest) == []
