"""What reports lead with where test images are empty, by class and in words; and that old records still do."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from specs import spec_of

from training.learning.algorithm import describe
from training.report import figures as drawing
from training.report.comparison import Comparison
from training.report.figures import LEAST_SPAN, OVER_FULL, Curve, draw_curves
from training.report.groups import group_runs
from training.report.measures import FOREGROUND, MEAN, classes_of, measure_of
from training.report.single import MOST_CLASSES, write_report
from training.run.records import read_rounds
from training.run.result import RunResult

CLASSES = ("blowhole", "break", "free")


def class_of(**values: float) -> dict[str, Any]:
    return {
        "images": 46,
        "masks": 46,
        "accuracy": 0.9,
        "dice": 0.4,
        "iou": 0.3,
        "with_foreground": 0,
        "empty": 0,
        **values,
    }


def record_of(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A round of a model that misses most blowholes."""
    return {
        "round": number,
        "masks_used": 6 * number,
        "pseudo_labels": 0,
        "threshold": 0.5,
        "asked": [],
        "test_dice": 0.71,
        "test_iou": 0.6,
        "test_accuracy": 0.9,
        "test_foreground_dice": 0.552,
        "test_foreground_dice_interval": [0.48, 0.61],
        "test_found": 0.9,
        "test_false_alarms": 0.1,
        "test_auroc": 0.876,
        "test_classes": {
            "blowhole": class_of(with_foreground=46, found=3 / 46, foreground_dice=0.02),
            "break": class_of(with_foreground=46, found=0, foreground_dice=0),
            "free": class_of(empty=46, false_alarms=5 / 46),
        },
        **changes,
    }


OLD = {
    name: value
    for name, value in record_of().items()
    if name in {"round", "masks_used", "pseudo_labels", "threshold", "asked", "test_dice", "test_iou", "test_accuracy"}
}
NONE_EMPTY = record_of(test_dice=0.552, test_false_alarms=None, test_auroc=None)


def test_the_dice_of_images_with_foreground_leads_where_all_have_it_and_some_image_is_empty() -> None:
    assert measure_of([record_of(), record_of(2)]) == FOREGROUND
    assert measure_of([{**OLD, "test_dice": None}, record_of(2)]) == FOREGROUND
    for rounds in ([], [OLD], [OLD, record_of(2)], [NONE_EMPTY]):
        assert measure_of(rounds) == MEAN


def test_the_line_of_a_round() -> None:
    assert describe(record_of()) == (
        "round 1: 6 masks, 0 pseudo-masks, threshold 0.50, test Dice of images with foreground 55.2 %, 90.0 % of them "
        "found, false alarms on 10.0 % of the empty ones, test accuracy 90.0 %"
    )
    for record in (OLD, {**NONE_EMPTY, "test_dice": 0.71}):
        assert (
            describe(record)
            == "round 1: 6 masks, 0 pseudo-masks, threshold 0.50, test Dice 71.0 %, test accuracy 90.0 %"
        )


def page_of(tmp_path: Path, *rounds: dict[str, Any]) -> str:
    write_report(tmp_path / "report.html", title="t", rounds=rounds, spec=spec_of(CLASSES), settings={})
    text = (tmp_path / "report.html").read_text().replace("\N{NARROW NO-BREAK SPACE}", " ")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "|", text.partition("<body>")[2]))


def test_a_report_says_first_where_a_model_fails(tmp_path: Path) -> None:
    page = page_of(tmp_path, record_of(), record_of(2))
    order = (
        "Where it fails",
        "break: none of 46 images with foreground is found.",
        "blowhole: 3 of 46 images with foreground are found.",
        "Masks used",
        "Test Dice of images with foreground||55.2 %",
        "48.0 to 61.0",
        "found||90.0 %",
        "false alarm||10.0 %",
        "Learning curve",
        "Classes",
        "blowhole||46||2.0 %||3 of 46||",
        "free||46||\N{EN DASH}||\N{EN DASH}||5 of 46||",
        "Rounds",
        "||55.2 %||90.0 %||10.0 %||0.876||71.0 %||90.0 %||",
    )
    places = [page.index(words) for words in order]
    assert places == sorted(places)


def test_where_no_image_is_empty_there_is_one_dice_and_no_false_alarm(tmp_path: Path) -> None:
    classes = {"break": class_of(with_foreground=46, found=1, foreground_dice=0.4)}
    page = page_of(tmp_path, {**NONE_EMPTY, "test_classes": classes})
    assert "Test Dice||55.2 %" in page
    for words in ("alse alarm", "with foreground", "ROC", "Where it fails", "all images"):
        assert words not in page, words


@pytest.mark.parametrize("rounds", [[OLD], [OLD, record_of(2)]])
def test_records_of_earlier_versions_give_a_report(tmp_path: Path, rounds: list[dict[str, Any]]) -> None:
    page = page_of(tmp_path, *rounds)
    assert "Test Dice||71.0 %" in page
    assert "None" not in page


def test_of_many_classes_the_weakest_are_shown(tmp_path: Path) -> None:
    classes = {
        f"class{number}": class_of(with_foreground=9, found=0, foreground_dice=number / 100) for number in range(50)
    }
    page = page_of(tmp_path, record_of(test_classes=classes))
    assert page.count(" is found.") == MOST_CLASSES - 1
    assert f"And {50 - MOST_CLASSES + 1} more." in page
    assert f"the {MOST_CLASSES} of 50 classes of the lowest Dice" in page
    assert "|class30|" not in page


def test_records_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").write_text(json.dumps(record_of()) + "\n" + json.dumps(OLD) + "\n")
    assert read_rounds(tmp_path) == [record_of(), OLD]
    assert classes_of(OLD) == {}
    assert classes_of(record_of())["blowhole"].found == 3 / 46


def run_of(name: str, seed: int, *rounds: dict[str, Any], query: str = "random") -> RunResult:
    settings = {"method": "masks-only", "query": query, "rounds": len(rounds), "seed": seed}
    return RunResult(Path(name), {"settings": settings, "fingerprint": "f", "source": "d"}, rounds)


def test_runs_are_compared_by_the_dice_that_all_have() -> None:
    new = [run_of("a-0", 0, record_of(), record_of(2, test_foreground_dice=0.6))]
    better = [run_of("b-0", 0, record_of(), record_of(2, test_foreground_dice=0.8, test_dice=0.5), query="entropy")]
    comparison = Comparison(group_runs(new + better)[0])
    assert comparison.measure == FOREGROUND
    random, entropy = comparison.rows()
    assert random.area is not None
    assert random.area.mean == pytest.approx((0.552 + 0.6) / 2)
    assert entropy.over_random is not None
    assert entropy.over_random.difference == pytest.approx(0.1)
    assert entropy.false_alarms is not None
    assert entropy.false_alarms.mean == pytest.approx(0.1)
    assert comparison.classes()["blowhole"]["a"].found == pytest.approx(3 / 46)
    old = Comparison(group_runs([*new, run_of("c-1", 1, OLD, {**OLD, "round": 2, "masks_used": 12})])[0])
    assert old.measure == MEAN


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_an_axis_spans_twenty_points_and_shows_every_value(values: list[float]) -> None:
    lowest, highest = 100 * min(values), 100 * max(values)
    low, high = drawing._at_least(LEAST_SPAN, lowest, highest)
    assert 0 <= low <= lowest <= highest <= high <= OVER_FULL
    assert high - low >= LEAST_SPAN - 1e-9


def test_the_interval_of_a_single_run_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    save = drawing._save

    def spy(figure: Figure, **options: Any) -> bytes:
        limits.append(figure.axes[0].get_ylim())
        return save(figure, **options)

    monkeypatch.setattr(drawing, "_save", spy)
    rounds = [record_of(), record_of(2, test_foreground_dice=0.556)]
    curve = Curve.of_rounds("a", rounds, FOREGROUND.key)
    assert curve.intervals == [(0.48, 0.61)] * 2
    assert draw_curves([curve]) != draw_curves([Curve(curve.name, curve.points)])
    for low, high in limits:
        assert high - low >= LEAST_SPAN - 1e-9
    assert Curve.of_rounds("a", rounds).intervals == [None, None]  # of another Dice
    assert Curve.of_rounds("a", [NONE_EMPTY]).intervals == [(0.48, 0.61)]
    assert Curve.of_rounds("a", [OLD]).intervals == [None]
