"""Masks without foreground after a round: an expert's, and a model's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import UNTRAINED, settings

from alserve.measure.dataset import load_dataset
from training.data.synthetic import draw_dataset
from training.learning.data import TrainingData, read_images
from training.learning.empty_masks import always_empty, warn_of_empty_masks
from training.learning.pool import Pool
from training.learning.state import LearningState
from training.model.trainer import Trainer


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images 0 to 3 are irregular, 4 to 7 regular."""
    return draw_dataset(tmp_path_factory.mktemp("data"), seed=3, train_per_class=4, test_per_class=1, size=(64, 96))


def begun(table: Path, masks: dict[int, bool], threshold: float, **changes: Any) -> tuple[TrainingData, LearningState]:
    """A state with masks, each with foreground or without."""
    dataset, chosen = load_dataset(table), settings(UNTRAINED, **changes)
    data = TrainingData(dataset, read_images(dataset, chosen.short_side), chosen)
    pool = Pool(data.labels, frozenset(), data.known_empty, labelled=set(masks))
    drawn = {index: np.full(data.images[index].shape[:2], full) for index, full in masks.items()}
    return data, LearningState(threshold=threshold, theta0={}, pool=pool, masks=drawn)


def warned(data: TrainingData, state: LearningState) -> dict[str, Any]:
    trainer = Trainer(data.settings, "cpu")
    return warn_of_empty_masks(trainer.new_network(2, 0), state, data, trainer)


def test_a_class_of_which_all_masks_are_empty_is_named(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, state = begun(table, {0: True, 4: False, 5: False, 6: False}, threshold=0)
    assert warned(data, state) == {"always_empty": ["regular"], "empty_masks": {"irregular": 0}}
    assert capsys.readouterr().err == (
        "alserve: class regular: all 3 masks so far are empty; if it never has foreground, run with "
        "--empty-class regular: no more masks are asked for it\n"
    )


@pytest.mark.parametrize(
    ("masks", "empty_classes"),
    [
        ({0: True, 4: False, 5: False}, ()),
        ({0: True, 4: False, 5: False, 6: True}, ()),
        ({0: True, 4: False, 5: False, 6: False}, ("regular",)),
        ({}, ()),
    ],
    ids=["two masks", "one has foreground", "it is known", "no mask at all"],
)
def test_a_class_that_is_not_named(table: Path, masks: dict[int, bool], empty_classes: tuple[str, ...]) -> None:
    data, state = begun(table, masks, threshold=0, empty_classes=empty_classes)
    assert always_empty(state, data) == []
    assert "always_empty" not in warned(data, state)


def test_a_model_that_finds_nothing_is_said(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, state = begun(table, {0: True, 1: False}, threshold=1, empty_classes=("regular",))
    assert warned(data, state) == {"empty_masks": {"irregular": 1}}
    assert capsys.readouterr().err == (
        "alserve: class irregular: 3 of 3 training images get an empty mask; the model does not find its objects "
        "(more masks, or a larger --short-side)\n"
    )
    data, state = begun(table, {0: True}, threshold=0)
    assert warned(data, state) == {"empty_masks": {"irregular": 0, "regular": 0}}
    assert capsys.readouterr().err == ""
