"""The steps of Algorithm 1 one by one, where a whole run would take longer to show the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import UNTRAINED, settings

from alserve.errors import DataError, RunError
from alserve.geometry import resize_mask
from alserve.images.codec import encode_jpeg, encode_png, to_grey
from alserve.measure.dataset import load_dataset
from training.annotate.oracle import SimulatedOracle
from training.data.synthetic import draw_dataset
from training.learning.data import read_images
from training.learning.learner import Learner
from training.learning.pseudo import pseudo_mask
from training.learning.pseudo_dice import pseudo_dice
from training.learning.state import LearningState
from training.model.trainer import Trainer
from training.run.folder import Run
from training.run.state import State, weights_of

Make = Callable[..., Learner]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a learner on four drawn images a class, each time in the same run's folder or another's."""
    table = draw_dataset(tmp_path / "data", seed=3, train_per_class=4, test_per_class=1, size=(64, 96))
    dataset = load_dataset(table)

    def make(name: str = "run", fingerprint: str = "x", **changes: Any) -> Learner:
        given = settings(UNTRAINED, **changes)
        with Run(tmp_path / name, given, source=table, fingerprint=fingerprint).begin() as run:
            images = read_images(dataset, given.short_side)
            return Learner(dataset, images, SimulatedOracle(), Trainer(given, "cpu"), run)

    return make


def begin(learner: Learner, state: State | None = None) -> LearningState:
    """Begin with theta0 as it is before any training."""
    learner.run.save_theta0(weights_of(learner.trainer.new_network(2, 0)))
    return learner.begin(state or State())


def rows(learner: Learner) -> list[list[int]]:
    return [row.tolist() for group in learner.nearest() for row in group.nearest]  # type: ignore[attr-defined]


def test_a_run_that_continues_counts_no_colours_again(make: Make) -> None:
    learner, again = make(), make()
    found = rows(learner)
    assert [len(row) for row in found] == [1] * 8
    again.data.images = [np.zeros_like(image) for image in again.data.images]  # not looked at
    assert rows(again) == found
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
    assert [len(row) for row in rows(make("many", k=40))] == [3] * 8
    said = capsys.readouterr().err
    assert "k is 40" in said
    assert "class irregular has only 4 images" in said
    assert len(said.splitlines()) == 1
    make("few", k=3).nearest()
    make("share").nearest()
    make("masks-only", method="masks-only", k=40).nearest()
    assert capsys.readouterr().err == ""


def test_images_known_to_be_empty_are_nobodys_neighbours(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    plain, learner = make("plain", k=2), make("empty", k=2, empty_classes=["irregular"])
    assert rows(learner) == rows(plain)[4:]
    state = begin(learner)
    assert state.pool.unlabelled == state.pool.askable == {4, 5, 6, 7}
    assert learner.gather_masks(state)
    assert len(state.pool.labelled) == 1
    assert "no image is left" not in capsys.readouterr().err


def test_masks_of_which_none_has_foreground_are_refused(make: Make) -> None:
    learner = make(initial=2)
    for sample in learner.data.samples:
        assert sample.mask is not None
        sample.mask.write_bytes(encode_png(np.zeros(sample.read()[0].shape[:2], np.uint8)))
    with pytest.raises(DataError, match=r"4 masks so far, all empty: .*--initial, --masks.*--method cams-only"):
        learner.gather_masks(begin(learner))


def test_objects_too_small_for_the_working_size_stay_and_are_said(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = make(initial=4, rounds=1)
    for sample in learner.data.samples[:3]:
        assert sample.mask is not None
        mask = np.zeros((256, 384), np.uint8)
        mask[101, 202] = 255
        sample.image.write_bytes(encode_jpeg(np.stack([mask] * 3, axis=2)))
        sample.mask.write_bytes(encode_png(mask))
    state = begin(learner)
    assert learner.gather_masks(state)
    assert [np.argwhere(state.masks[index]).tolist() for index in range(3)] == [[[25, 50]]] * 3
    assert "the objects are small: at the working size, a short side of 64 pixels, " in capsys.readouterr().err


def test_pseudo_masks_are_compared_with_the_truth(make: Make) -> None:
    data = make().data
    truth = data.samples[1].read()[1]
    assert truth is not None
    assert truth.any()
    mask = resize_mask(truth, data.images[1].shape[:2])
    assert pseudo_dice({1: to_grey(mask)}, data.samples) == 1
    nothing = np.zeros(data.images[6].shape[:2], np.uint8)
    assert pseudo_dice({1: to_grey(mask), 6: nothing}, data.samples) == 0.5
    assert pseudo_dice({}, data.samples) is None


def test_a_pseudo_mask_over_all_flips_turns_with_its_image(make: Make) -> None:
    learner = make("flips")
    net = learner.trainer.new_network(2, 0)
    state = begin(learner)
    state.pool.add_pseudo({0, 1})
    learner.data.images[1] = np.flip(learner.data.images[0], (0, 1)).copy()
    found = learner.pseudo_label(net, state)
    assert np.abs(found[0].astype(int) - np.flip(found[1], (0, 1))).max() <= 1
    plain = make("plain", pseudo_flips=False).pseudo_label(net, state)[0]
    ((alone, _cams),) = learner.trainer.predict(net, learner.data.images[:1])
    np.testing.assert_array_equal(plain, pseudo_mask(alone, 0.5))
    assert (plain != found[0]).any()


def test_an_image_of_p_that_the_oracle_drew_is_learned_from_its_true_mask_only(make: Make) -> None:
    learner = make(passes=1)
    mask = np.full(learner.data.images[0].shape[:2], 255, np.uint8)
    trained = []
    for pseudo in ({0: mask, 1: mask}, {1: mask}):
        state = begin(learner, State(asked=[[0, 4]], pseudo=pseudo))
        assert state.pool.pseudo == {1}
        trained.append(weights_of(learner.train(state)))
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[1])


@pytest.mark.parametrize(
    "state",
    [
        State(asked=[[99]]),
        State(pseudo={99: np.zeros((64, 96), np.uint8)}),
        State(pseudo={0: np.zeros((2, 2), np.uint8)}),
    ],
    ids=["an image that is not there", "a pseudo-mask of one", "a pseudo-mask of another size"],
)
def test_a_state_of_other_data_is_refused(make: Make, state: State) -> None:
    with pytest.raises(RunError, match=r"does not fit its data and settings; .*--overwrite"):
        begin(make(), state)
