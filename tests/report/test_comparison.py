"""Runs in groups, and groups compared."""

from pathlib import Path

import pytest

from training.report.comparison import Comparison
from training.report.groups import group_runs
from training.report.statistics import spread_of
from training.run.result import RunResult


def run_of(name: str, seed: int, dices: list[float], rounds: int = 3, **changes: object) -> RunResult:
    chosen = {"method": "masks-only", "query": "random", "rounds": rounds, "seed": seed, **changes}
    records = [
        {"round": number + 1, "masks_used": 8 + 2 * number, "pseudo_labels": 0, "test_dice": dice, "asked": []}
        for number, dice in enumerate(dices)
    ]
    return RunResult(Path(name), {"settings": chosen, "fingerprint": "f", "source": "d"}, records)


def test_groups_differ_by_more_than_the_seed() -> None:
    groups, notes = group_runs(
        [
            run_of("a/x-10", 10, [0.5]),
            run_of("a/x-2", 2, [0.5]),
            run_of("b/x-3", 3, [0.5], k=2),
            run_of("b/full-0", 0, [0.9], method="all-masks"),
            run_of("b/w", 0, [0.1], method="cams-only"),
            run_of("c/y-2", 2, [0.5]),
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
            run_of("random-0", 0, [0.6, 0.7, 0.8]),
            run_of("random-1", 1, [0.6]),
            run_of("entropy-0", 0, [0.7, 0.8, 0.9, 0.9], rounds=4, query="entropy"),
            run_of("entropy-1", 1, [0.7, 0.8, 0.9, 0.9], rounds=4, query="entropy"),
            run_of("full-0", 0, [0.95], method="all-masks"),
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
            run_of("random-0", 0, [0.6], rounds=1),
            run_of("random-1", 1, [0.7], rounds=1),
            run_of("random-2", 2, [0.5], rounds=1),
            run_of("near-1", 1, [0.75], rounds=1, method="label-propagation", k=0.1),
            run_of("near-0", 0, [0.62], rounds=1, method="label-propagation", k=0.1),
        ]
    )
    comparison = Comparison(groups)
    assert (comparison.span, comparison.only_budget) == (None, 8)
    rows = {row.group.name: row for row in comparison.rows()}
    over = rows["near"].over_random
    assert over is not None
    assert (over.n, over.difference) == (2, pytest.approx(0.035))
    assert rows["near"].area is None
    assert Comparison([*groups, *group_runs([run_of("core-0", 0, [0.6, 0.7])])[0]]).only_budget is None


def test_nothing_to_compare_is_no_error() -> None:
    groups, _ = group_runs([run_of("full-0", 0, [0.9], method="all-masks"), run_of("random-0", 0, [0.5])])
    comparison = Comparison(groups)
    assert comparison.span is None
    assert [row.area for row in comparison.rows()] == [None, None]
    assert comparison.ablations() == []


def test_what_a_name_leaves_open() -> None:
    runs = [
        run_of("masks-only-0", 0, [0.5]),
        run_of("random-0", 0, [0.5], k=2),
        run_of("plain-0", 0, [0.5], k=3),
        run_of("entropy-0", 0, [0.5], query="entropy"),
        run_of("unsure-0", 0, [0.5], query="entropy", k=2),
        run_of("label-propagation-0", 0, [0.5], method="label-propagation"),
        run_of("bound-0", 0, [0.5], method="cams-only"),
    ]
    groups, _ = group_runs(runs)
    assert {group.name: group.details for group in groups} == {
        "masks-only": "published as random",
        "random": "masks-only",
        "plain": "masks-only, published as random",
        "entropy": "masks-only",
        "unsure": "masks-only, entropy",
        "label-propagation": "",
        "bound": "cams-only, published as wsl",
    }
