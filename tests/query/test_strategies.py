"""Query strategies: what each prefers, how it treats ties and numbers that are none, and all on a real network."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from drawn import UNTRAINED, settings
from hypothesis import given
from hypothesis import strategies as st

from alserve.arrays import Floats
from alserve.measure.dataset import load_dataset
from training.annotate.oracle import SimulatedOracle
from training.data.synthetic import draw_dataset
from training.learning.learner import Learner, read_images, weights_of
from training.model.phases import Trainer
from training.query.strategies import STRATEGIES, disagreement, entropy, highest
from training.run.folder import Run
from training.run.state import State


@dataclass
class Seen:
    """A view of arrays that are known already."""

    has_model: bool = True
    points: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    probabilities: Floats = field(default_factory=lambda: np.zeros((0, 4, 4)))
    draws: Floats = field(default_factory=lambda: np.zeros((0, 3, 4, 4)))
    cams: Floats = field(default_factory=lambda: np.zeros((0, 4, 4)))

    def features(self, images: Sequence[int]) -> Floats:
        return self.points[list(images)]

    def probability(self, image: int) -> Floats:
        return self.probabilities[image]

    def samples(self, image: int) -> Floats:
        return self.draws[image]

    def cam(self, image: int) -> Floats:
        return self.cams[image]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.lists(st.floats(allow_infinity=False) | st.just(float("nan")), min_size=1, max_size=20), st.data())
def test_the_highest_are_chosen_and_what_is_no_number_only_last(scores: list[float], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, len(scores)))
    candidates = [10 * index for index in range(len(scores))]
    chosen = highest(candidates, scores, wanted, rng())
    assert len(set(chosen)) == wanted
    assert chosen == sorted(chosen)
    numbers = sorted((score for score in scores if not np.isnan(score)), reverse=True)
    found = sorted((scores[index // 10] for index in chosen if not np.isnan(scores[index // 10])), reverse=True)
    assert found == numbers[:wanted]


def test_at_random_every_candidate_is_as_likely() -> None:
    counts = np.zeros(5)
    for seed in range(500):
        counts[STRATEGIES["random"](Seen(), range(5), [], 2, rng(seed))] += 1
    assert counts.min() > 150


def test_ties_are_broken_at_random_and_repeatably() -> None:
    firsts = [highest(range(5), [1.0] * 5, 1, rng(seed))[0] for seed in range(200)]
    assert set(firsts) == set(range(5))
    assert firsts == [highest(range(5), [1.0] * 5, 1, rng(seed))[0] for seed in range(200)]


def test_entropy_asks_for_the_undecided_image() -> None:
    view = Seen(probabilities=np.stack([np.full((4, 4), p) for p in (0.01, 0.9, 0.55, 0.0)]))
    assert STRATEGIES["entropy"](view, [0, 1, 2, 3], [], 1, rng()) == [2]
    assert STRATEGIES["entropy"](view, [0, 1, 2, 3], [], 2, rng()) == [1, 2]
    assert entropy(np.full((2, 2), 0.5)) == pytest.approx(np.log(2))
    assert 0 <= entropy(np.zeros((2, 2))) < 1e-5


def test_mc_dropout_asks_where_the_draws_differ() -> None:
    draws = np.full((3, 3, 4, 4), 0.5)
    draws[1] += np.array([-0.4, 0, 0.4])[:, None, None]
    assert STRATEGIES["mc-dropout"](Seen(draws=draws), [0, 1, 2], [], 1, rng()) == [1]


def test_disagreement_asks_where_cam_and_mask_say_different_things() -> None:
    half = np.zeros((4, 4))
    half[:2] = 1
    view = Seen(probabilities=np.stack([half] * 2), cams=np.stack([half, 1 - half]))
    assert STRATEGIES["disagreement"](view, [0, 1], [], 1, rng()) == [1]
    assert [disagreement(half, half), disagreement(half, 1 - half)] == [0, 1]
    assert disagreement(np.zeros((2, 2)), np.zeros((2, 2))) == 0


def test_core_set_takes_what_is_farthest_from_all_masks() -> None:
    points = np.array([[0, 0], [1, 0], [9, 0], [10, 0], [5, 20]], np.float64)
    assert STRATEGIES["core-set"](Seen(points=points), [1, 2, 3, 4], [0], 1, rng()) == [4]
    assert STRATEGIES["core-set"](Seen(points=points), [1, 2, 3, 4], [0], 2, rng()) == [3, 4]
    assert len(STRATEGIES["core-set"](Seen(points=points), range(5), [], 3, rng())) == 3


def test_typical_takes_the_middle_of_every_heap() -> None:
    heaps = [rng(1).normal(centre, 0.3, (9, 2)) for centre in ((0, 0), (50, 0), (0, 50))]
    points = np.concatenate([np.concatenate([heap, heap.mean(axis=0, keepdims=True)]) for heap in heaps])
    chosen = STRATEGIES["typical"](Seen(points=points, has_model=False), range(30), [], 3, rng())
    assert [index // 10 for index in chosen] == [0, 1, 2]
    outermost = [np.abs(heap - heap.mean(axis=0)).sum(axis=1).argmax() for heap in heaps]
    assert not {10 * heap + int(place) for heap, place in enumerate(outermost)} & set(chosen)
    others = STRATEGIES["typical"](Seen(points=points), [i for i in range(30) if i != 5], [5], 2, rng())
    assert [index // 10 for index in others] == [1, 2]  # the first heap has a mask already


@pytest.mark.parametrize("name", STRATEGIES)
def test_identical_images_and_few_of_them(name: str) -> None:
    same = Seen(
        points=np.ones((4, 2)), probabilities=np.ones((4, 4, 4)), draws=np.ones((4, 3, 4, 4)), cams=np.ones((4, 4, 4))
    )
    assert STRATEGIES[name](same, [0, 1, 2], [3], 3, rng()) == [0, 1, 2]
    assert len(STRATEGIES[name](same, [0, 1, 2], [3], 2, rng())) == 2
    assert len(STRATEGIES[name](Seen(has_model=False, points=np.ones((4, 2))), [0, 1, 2], [], 1, rng())) == 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_on_a_real_network_class_by_class_and_repeatably(name: str, tmp_path: Path) -> None:
    table = draw_dataset(tmp_path / "data", seed=3, train_per_class=4, test_per_class=1, size=(64, 96))
    dataset, given_settings = load_dataset(table), settings(UNTRAINED, query=name)
    trainer = Trainer(given_settings, "cpu")
    with Run(tmp_path / "run", given_settings, source=table, fingerprint="x") as run:
        learner = Learner(dataset, read_images(dataset, trainer.settings.short_side), SimulatedOracle(), trainer, run)
        weights = weights_of(trainer.new_network(2, seed=0))
        state = State(round=2, asked=[[0, 4]], weights=weights)
        pool = learner.new_pool(state)
        chosen = learner.query(pool, weights, state)
        assert chosen == learner.query(pool, weights, state)
    assert sorted(learner.labels[index] for index in chosen) == [0, 1]
    assert not pool.labelled & set(chosen)
