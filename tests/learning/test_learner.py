"""The verbs of the procedure one by one, where a whole run would take longer to say the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import UNTRAINED, settings

from alserve.geometry import resize_mask
from alserve.images.codec import to_grey
from alserve.measure.dataset import load_dataset
from training.annotate.oracle import SimulatedOracle
from training.data.synthetic import draw_dataset
from training.learning.learner import Learner, read_images, weights_of
from training.learning.pseudo import pseudo_mask
from training.model.phases import Trainer
from training.run.folder import Run
from training.run.state import State

Make = Callable[..., Learner]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a learner on four drawn images a class, each time in the same run's folder or another's."""
    table = draw_dataset(tmp_path / "data", seed=3, train_per_class=4, test_per_class=1, size=(64, 96))
    dataset = load_dataset(table)

    def make(name: str = "run", fingerprint: str = "x", **changes: Any) -> Learner:
        given = settings(UNTRAINED, **changes)
        with Run(tmp_path / name, given, source=table, fingerprint=fingerprint) as run:
            images = read_images(dataset, given.short_side)
            return Learner(dataset, images, SimulatedOracle(), Trainer(given, "cpu"), run)

    return make


def test_a_run_that_continues_counts_no_colours_again(make: Make) -> None:
    learner, again = make(), make()
    found = learner.nearest()
    assert [len(row) for row in found] == [1] * 8
    again.images = [np.zeros_like(image) for image in again.images]  # not looked at
    assert again.nearest() == found
    assert len(list(learner.run.cache.glob("colours-*"))) == 1


def test_other_data_or_another_size_are_counted_anew(make: Make) -> None:
    first = make()
    first.nearest()
    (kept,) = first.run.cache.iterdir()
    for other in (make("other", fingerprint="y"), make("size", short_side=96)):
        other.run.cache.mkdir()
        other.run.cache.joinpath(kept.name).write_bytes(b"would be an error if it were read")
        other.nearest()
        assert len(list(other.run.cache.iterdir())) == 2


def test_a_k_that_leaves_no_choice_is_said(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert [len(row) for row in make("many", k=40).nearest()] == [3] * 8
    said = capsys.readouterr().err
    assert "k is 40" in said
    assert "class irregular has only 4 images" in said
    assert len(said.splitlines()) == 1
    make("few", k=3).nearest()
    make("share").nearest()
    make("random", method="random", k=40).nearest()
    assert capsys.readouterr().err == ""


def test_pseudo_masks_are_compared_with_the_truth_and_the_truth_is_not_kept(make: Make) -> None:
    learner = make()
    truth = learner.samples[1].read()[1]
    assert truth is not None
    assert truth.any()
    mask = resize_mask(truth, learner.images[1].shape[:2])
    assert learner._pseudo_dice({1: to_grey(mask)}) == 1
    assert learner._pseudo_dice({1: to_grey(mask), 6: np.zeros(learner.images[6].shape[:2], np.uint8)}) == 0.5
    assert learner._pseudo_dice({}) is None
    assert not learner.masks


def test_a_pseudo_mask_over_all_flips_turns_with_its_image(make: Make) -> None:
    learner = make("flips")
    net = learner.trainer.new_network(2, 0)
    pool = learner.new_pool(State())
    pool.add_pseudo({0, 1})
    learner.images[1] = np.flip(learner.images[0], (0, 1)).copy()
    found = learner.pseudo_label(net, pool, 0.5)
    assert np.abs(found[0].astype(int) - np.flip(found[1], (0, 1))).max() <= 1
    plain = make("plain", pseudo_flips=False).pseudo_label(net, pool, 0.5)[0]
    ((alone, _cams),) = learner.trainer.predict(net, learner.images[:1])
    np.testing.assert_array_equal(plain, pseudo_mask(alone, 0.5))
    assert (plain != found[0]).any()


def test_an_image_of_p_that_the_oracle_drew_is_learned_from_its_true_mask_only(make: Make) -> None:
    learner = make(passes=1)
    theta0 = weights_of(learner.trainer.new_network(2, 0))
    mask = np.full(learner.images[0].shape[:2], 255, np.uint8)
    stale, fresh = State(), State()
    stale.asked = fresh.asked = [[0, 4]]
    stale.pseudo, fresh.pseudo = {0: mask, 1: mask}, {1: mask}
    first, second = (weights_of(learner.train(theta0, learner.new_pool(state), state)) for state in (stale, fresh))
    assert all(torch.equal(first[name], second[name]) for name in second)
