"""Figures over seeds: laws of the area under a curve, tests by pair, and what was published."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel, wilcoxon

from alserve.modelfile import ModelSpec, Provenance
from training.report.comparison import Comparison
from training.report.groups import group_runs
from training.report.published import published, published_for
from training.report.statistics import area_under, compare_paired, masks_to_reach, spread_of
from training.run.result import RunResult

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
    made = Provenance(
        encoder="e",
        method="all-masks",
        seed=0,
        rounds=1,
        masks_used=1,
        train_images=images,
        data_fingerprint="f",
        versions={},
    )
    spec = ModelSpec(classes=classes, threshold=0.5, short_side=64, cam_range=(0, 1), provenance=made, parity=())
    found = published_for(spec)
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


def finding(name: str, seed: int, dices: list[float], rounds: int = 3, **changes: object) -> RunResult:
    chosen = {"method": "masks-only", "query": "random", "rounds": rounds, "seed": seed, **changes}
    records = [
        {"round": number + 1, "masks_used": 8 + 2 * number, "pseudo_labels": 0, "test_dice": dice, "asked": []}
        for number, dice in enumerate(dices)
    ]
    return RunResult(Path(name), {"settings": chosen, "fingerprint": "f", "source": "d"}, records)


def test_groups_differ_by_more_than_the_seed() -> None:
    groups, notes = group_runs(
        [
            finding("a/x-10", 10, [0.5]),
            finding("a/x-2", 2, [0.5]),
            finding("b/x-3", 3, [0.5], k=2),
            finding("b/full-0", 0, [0.9], method="all-masks"),
            finding("b/w", 0, [0.1], method="cams-only"),
            finding("c/y-2", 2, [0.5]),
        ]
    )
    assert [(group.name, [run.seed for run in group.runs]) for group in groups] == [
        ("w", [0]),
        ("x", [2, 10]),
        ("b/x", [3]),
        ("full", [0]),
    ]
    assert notes == [f"{Path('c/y-2')} is left out: {Path('a/x-2')} has the same settings and seed."]


def test_areas_are_taken_over_what_finished_runs_share() -> None:
    groups, _ = group_runs(
        [
            finding("random-0", 0, [0.6, 0.7, 0.8]),
            finding("random-1", 1, [0.6]),
            finding("entropy-0", 0, [0.7, 0.8, 0.9, 0.9], rounds=4, query="entropy"),
            finding("entropy-1", 1, [0.7, 0.8, 0.9, 0.9], rounds=4, query="entropy"),
            finding("full-0", 0, [0.95], method="all-masks"),
        ]
    )
    comparison = Comparison(groups)
    assert comparison.span == (8, 12)
    rows = {row.group.name: row for row in comparison.rows()}
    assert rows["random"].area == spread_of([0.7])
    assert rows["entropy"].area == spread_of([0.8, 0.8])
    over = rows["entropy"].over_random
    assert over is not None
    assert (over.n, over.difference) == (1, pytest.approx(0.1))
    assert rows["random"].over_random is None
    assert rows["entropy"].to_reach == (None, None)
    assert rows["full"].area is None
    assert rows["full"].dice == spread_of([0.95])
    assert rows["full"].to_reach == ()


def test_with_one_budget_its_dice_is_compared() -> None:
    groups, _ = group_runs(
        [
            finding("random-0", 0, [0.6], rounds=1),
            finding("random-1", 1, [0.7], rounds=1),
            finding("random-2", 2, [0.5], rounds=1),
            finding("near-1", 1, [0.75], rounds=1, method="label-propagation", k=0.1),
            finding("near-0", 0, [0.62], rounds=1, method="label-propagation", k=0.1),
        ]
    )
    comparison = Comparison(groups)
    assert (comparison.span, comparison.only_budget) == (None, 8)
    rows = {row.group.name: row for row in comparison.rows()}
    over = rows["near"].over_random
    assert over is not None
    assert (over.n, over.difference) == (2, pytest.approx(0.035))
    assert rows["near"].area is None
    assert Comparison([*groups, *group_runs([finding("core-0", 0, [0.6, 0.7])])[0]]).only_budget is None


def test_nothing_to_compare_is_no_error() -> None:
    groups, _ = group_runs([finding("full-0", 0, [0.9], method="all-masks"), finding("random-0", 0, [0.5])])
    comparison = Comparison(groups)
    assert comparison.span is None
    assert [row.area for row in comparison.rows()] == [None, None]
    assert comparison.ablations() == []
