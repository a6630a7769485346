"""Which images are near a labelled one: exactly in small classes, nearly so in large ones, within bounded memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture
from scipy.spatial.distance import cdist

from training.learning import neighbours as module
from training.learning.neighbours import EstimatedNeighbours, NearestNeighbours, divergences, neighbours, within_reach
from training.learning.similarity import Counts, describe, distances, histograms


def grey(value: int, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.full((*shape, 3), value, np.uint8)


def rows(counts: Counts, labels: list[int], k: float) -> list[list[int]]:
    """The neighbours of every image, as a list."""
    found: dict[int, list[int]] = {}
    for group in neighbours(counts, labels, k, 0):
        assert isinstance(group, NearestNeighbours)
        found |= dict(zip(group.members.tolist(), group.nearest.tolist(), strict=True))
    return [found[index] for index in range(len(labels))]


def test_neighbours_are_the_nearest_of_the_same_class() -> None:
    images = [grey(value) for value in (10, 200, 12, 14, 202, 90)]
    labels = [0, 1, 0, 1, 1, 0]
    for index, found in enumerate(rows(describe(images), labels, 5)):
        assert index not in found
        assert sorted([*found, index]) == [i for i, label in enumerate(labels) if label == labels[index]]
    mixed = [picture(seed=seed) for seed in (0, 1, 0, 2)]
    assert [found[0] for found in rows(describe(mixed), [0] * 4, 1)][0:3:2] == [2, 0]


@pytest.mark.parametrize(("k", "count"), [(0.25, 2), (0.5, 4), (0.01, 1), (1, 1), (3, 3), (8, 7), (40, 7)])
def test_k_is_a_count_or_a_fraction_of_the_class(k: float, count: int) -> None:
    images = [picture(20, 30, seed) for seed in range(10)]
    found = rows(describe(images), [0] * 8 + [1, 2], k)
    assert [len(row) for row in found] == [count] * 8 + [0, 0]


def test_equally_near_images_come_in_their_order() -> None:
    counts = describe([picture(seed=0), picture(seed=1), *[picture(seed=2)] * 4])
    assert rows(counts, [0] * 6, 3)[2:] == [[3, 4, 5], [2, 4, 5], [2, 3, 5], [2, 3, 4]]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.floats(0.05, 20))
def test_neighbours_of_any_classes_and_any_k(labels: list[int], k: float) -> None:
    rng = np.random.default_rng(len(labels))
    counts = rng.integers(0, 9, (len(labels), 3, 256)).astype(np.uint32)
    for index, found in enumerate(rows(counts, labels, k)):
        others = [i for i, label in enumerate(labels) if label == labels[index] and i != index]
        wanted = max(1, round(k * (len(others) + 1))) if k < 1 else int(k)
        between = distances(counts[sorted([*others, index])])[sorted([*others, index]).index(index)]
        assert len(set(found)) == len(found) == min(wanted, len(others))
        assert set(found) <= set(others)
        near = [between[sorted([*others, index]).index(other)] for other in found]
        assert near == sorted(between)[1 : len(found) + 1]


def test_more_neighbours_begin_with_the_fewer() -> None:
    images = [picture(20, 30, seed) for seed in range(6)]
    few, many = (rows(describe(images), [0] * 6, k) for k in (2, 4))
    assert [row[:2] for row in many] == few


def test_only_images_beside_a_labelled_one_are_within_reach() -> None:
    values = [(0, 1), (2, 4)]
    nearest = [NearestNeighbours(np.array(members), np.array([[members[1]], [members[0]]])) for members in values]
    assert within_reach([0, 1, 2], [4], nearest) == [2]
    assert within_reach([1, 2, 4], [0], nearest) == [1]
    assert within_reach([2, 4], [0], nearest) == []
    assert within_reach([0, 1], [], nearest) == []
    assert within_reach([], [], []) == []


def random_counts(number: int, seed: int = 0) -> Counts:
    """Histograms of a Gaussian each, whose mean and width are drawn."""
    rng = np.random.default_rng(seed)
    means, widths = rng.uniform(40, 215, (number, 3, 1)), rng.uniform(5, 40, (number, 3, 1))
    return np.round(1000 * np.exp(-(((np.arange(256) - means) / widths) ** 2))).astype(np.uint32)


def test_divergences_are_those_of_scipy() -> None:
    counts = random_counts(9)
    parts = [histograms(counts[part]).swapaxes(0, 1) for part in (slice(0, 3), slice(2, 9))]
    ours, theirs = (part.astype(np.float32) for part in parts)
    expected = np.stack([cdist(*(part[channel] for part in parts), "jensenshannon") ** 2 for channel in range(3)])
    np.testing.assert_allclose(divergences(ours, theirs), expected, atol=1e-5)
    np.testing.assert_allclose(divergences(theirs, ours), expected.swapaxes(1, 2), atol=1e-5)


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXACT", 100)
    monkeypatch.setattr(module, "SAMPLE", 100)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("k", [0.02, 0.1, 0.25, 0.5])
def test_a_large_class_is_estimated_from_a_sample(k: float) -> None:
    counts, labels = random_counts(660), [0, 1] * 300 + [1] * 60
    found = neighbours(counts, labels, k, seed=4)
    assert [type(group) for group in found] == [EstimatedNeighbours] * 2
    between = {label: distances(counts[np.array(labels) == label]) for label in (0, 1)}
    for labelled in ([3, 8], [3, 8, 100, 501]):
        near = set(within_reach(set(range(660)) - set(labelled), labelled, found))
        exact = set()
        for label, group in enumerate(found):
            members = group.members
            for place, row in enumerate(between[label]):
                reach = members[np.argsort(row, kind="stable")[1 : 1 + round(k * len(members))]]
                exact |= {int(members[place])} if set(labelled) & set(reach.tolist()) else set()
        exact -= set(labelled)
        assert len(near ^ exact) < 0.08 * 660
        again = neighbours(counts, labels, k, seed=4)
        assert near == set(within_reach(set(range(660)) - set(labelled), labelled, again))


@pytest.mark.usefixtures("small_limits")
def test_a_sample_of_a_class_of_any_k() -> None:
    counts = random_counts(150)
    for k in (1, 149, 400):
        found = neighbours(counts, [0] * 150, k, seed=0)
        near = within_reach(range(1, 150), [0], found)
        assert 0 <= len(near) < 10 if k == 1 else near == list(range(1, 150))


@pytest.mark.usefixtures("small_limits")
def test_a_large_class_of_twins() -> None:
    found = neighbours(np.repeat(random_counts(1), 120, axis=0), [0] * 120, 0.25, seed=0)
    assert within_reach(range(1, 120), [0], found) == list(range(1, 120))
