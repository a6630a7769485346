"""Figures over seeds: the area under a curve, paired tests, and what was published."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel, wilcoxon

from training.report.published import published, published_for
from training.report.statistics import area_under, compare_paired, masks_to_reach, spread_of

SHARE = st.floats(0, 1)


@st.composite
def curves(draw: st.DrawFn) -> list[tuple[int, float]]:
    """At least two budgets, each with a Dice."""
    masks = draw(st.lists(st.integers(0, 5000), min_size=2, max_size=30, unique=True))
    return [(place, draw(SHARE)) for place in sorted(masks)]


@given(curves(), SHARE)
def test_a_constant_curve_has_its_constant_as_area(curve: list[tuple[int, float]], value: float) -> None:
    flat = [(masks, value) for masks, _ in curve]
    assert area_under(flat, flat[0][0], flat[-1][0]) == pytest.approx(value)


@given(curves(), st.floats(-0.5, 0.5))
def test_the_area_lies_within_the_curve_and_moves_with_it(curve: list[tuple[int, float]], by: float) -> None:
    start, stop, values = curve[0][0], curve[-1][0], [value for _, value in curve]
    area = area_under(curve, start, stop)
    assert area is not None
    assert min(values) - 1e-9 <= area <= max(values) + 1e-9
    assert area_under([(masks, value + by) for masks, value in curve], start, stop) == pytest.approx(area + by)


@given(curves(), st.data())
def test_areas_of_parts_add_up(curve: list[tuple[int, float]], data: st.DataObject) -> None:
    start, stop = curve[0][0], curve[-1][0]
    middle = data.draw(st.floats(start, stop).filter(lambda place: start < place < stop))
    parts = [area_under(curve, start, middle), area_under(curve, middle, stop)]
    assert None not in parts
    weighted = (parts[0] * (middle - start) + parts[1] * (stop - middle)) / (stop - start)  # type: ignore[operator]
    assert weighted == pytest.approx(area_under(curve, start, stop))


def test_no_area_where_the_curve_does_not_reach() -> None:
    curve = [(8, 0.5), (16, 0.7)]
    assert area_under(curve, 8, 12) == pytest.approx(0.55)
    for start, stop in ((7, 16), (8, 17), (8, 8), (16, 8)):
        assert area_under(curve, start, stop) is None
    assert area_under([], 8, 16) is None


@pytest.mark.parametrize(
    ("name", "method", "area"),
    [
        ("GlaS", "random", 78.57),
        ("GlaS", "entropy", 79.13),
        ("GlaS", "mc-dropout", 77.92),
        ("GlaS", "label-propagation", 81.48),
        ("CUB-200-2011", "random", 68.15),
        ("CUB-200-2011", "entropy", 68.25),
        ("CUB-200-2011", "mc-dropout", 67.69),
        ("CUB-200-2011", "label-propagation", 71.73),
    ],
)
def test_the_published_areas_come_out(name: str, method: str, area: float) -> None:
    """Table 3 of arXiv:2010.04889, from the curves of Figure 5."""
    (found,) = [found for found in published() if found.name == name]
    points = found.points(method)
    assert area_under(points, points[0][0], points[-1][0]) == pytest.approx(area / 100, abs=1.1e-4)


def test_the_published_bounds_and_budgets() -> None:
    glas, cub = published()
    assert [len(glas.points("random")), glas.points("random")[0][0], glas.points("random")[-1][0]] == [25, 8, 56]
    assert [len(cub.points("random")), cub.points("random")[0][0], cub.points("random")[-1][0]] == [20, 200, 4000]
    bounds = [100 * found.points(method)[0][1] for found in (glas, cub) for method in ("wsl", "full")]
    assert bounds == pytest.approx([66.44, 86.53, 39.22, 75.29], abs=0.01)
    assert glas.points("core-set") == []


@pytest.mark.parametrize(
    ("classes", "images", "name"),
    [
        (("benign", "malignant"), 67, "GlaS"),
        (("benign", "malignant"), 68, None),
        (("a", "b"), 67, None),
        (tuple(map(str, range(200))), 4794, "CUB-200-2011"),
    ],
)
def test_the_published_data_are_known_again(classes: tuple[str, ...], images: int, name: str | None) -> None:
    found = published_for(classes, images)
    assert (found and found.name) == name


@given(st.lists(SHARE | st.none() | st.just(math.nan), max_size=8))
def test_a_spread_is_of_what_was_measured(values: list[float | None]) -> None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    spread = spread_of(values)
    if spread is None:
        assert not known
    else:
        assert spread.n == len(known)
        assert min(known) - 1e-9 <= spread.mean <= max(known) + 1e-9
        assert (spread.std is None) == (len(known) == 1)


def test_paired_by_seed() -> None:
    ours: dict[int, float | None] = {0: 0.86, 1: 0.84, 2: 0.87, 3: 0.85, 4: None, 5: 0.9}
    theirs: dict[int, float | None] = {3: 0.80, 2: 0.81, 1: 0.82, 0: 0.83, 4: 0.7, 6: 0.1}
    found = compare_paired(ours, theirs)
    assert found is not None
    first, second = [0.86, 0.84, 0.87, 0.85], [0.83, 0.82, 0.81, 0.80]
    assert (found.n, found.difference) == (4, pytest.approx(0.04))
    assert found.t_test == pytest.approx(ttest_rel(first, second).pvalue)
    assert found.wilcoxon == pytest.approx(wilcoxon(first, second).pvalue) == pytest.approx(2 / 2**4)


@given(st.dictionaries(st.integers(0, 9), SHARE | st.none() | st.just(math.nan), max_size=6), SHARE)
def test_a_test_is_a_probability_or_nothing(values: dict[int, float | None], other: float) -> None:
    found = compare_paired(values, dict.fromkeys(values, other))
    known = [value for value in values.values() if value is not None and not math.isnan(value)]
    assert (found.n if found else 0) == len(known)
    for p in (found.t_test, found.wilcoxon) if found else ():
        assert p is None or 0 <= p <= 1
    if found and len(set(known)) == 1:
        assert found.t_test is None


def test_masks_to_reach() -> None:
    curve = [(8, 0.8), (10, 0.86), (12, 0.85), (14, 0.9)]
    assert [masks_to_reach(curve, goal) for goal in (0.5, 0.85, 0.87, 0.95)] == [8, 10, 14, None]
