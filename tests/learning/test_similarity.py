"""Similarity by colour: histograms and divergence as published; and nothing counted twice."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pictures import picture

from training.learning.similarity import (
    count_colours,
    describe,
    describe_once,
    distances,
    histograms,
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
