"""Query strategies: what each prefers, how it treats ties and numbers that are none, and all on a real network."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from drawn import UNTRAINED, settings
from hypothesis import given
from hypothesis import strategies as st

from alserve.arrays import Floats
from alserve.certainty import entropy
from alserve.measure.dataset import load_dataset
from training.annotate.oracle import SimulatedOracle
from training.data.synthetic import draw_dataset
from training.learning.data import read_images
from training.learning.learner import Learner
from training.model.trainer import Trainer
from training.query import STRATEGIES, QueryContext, Strategy, v_optimal
from training.query.disagreement import disagreement
from training.query.ranking import highest
from training.run.folder import Run
from training.run.state import State, weights_of
from training.settings import Settings
from training.train import train_run


@dataclass
class Seen:
    """A context of arrays that are known already."""

    has_model: bool = True
    points: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    probabilities: Floats = field(default_factory=lambda: np.zeros((0, 4, 4)))
    draws: Floats = field(default_factory=lambda: np.zeros((0, 3, 4, 4)))
    cams: Floats = field(default_factory=lambda: np.zeros((0, 4, 4)))
    grids: Floats = field(default_factory=lambda: np.zeros((0, 40, 3)))

    def features(self, images: Sequence[int]) -> Floats:
        return self.points[list(images)]

    def places(self, image: int) -> tuple[Floats, Floats]:
        return self.grids[image], self.grids[image, :, -1]

    def probability(self, image: int) -> Floats:
        return self.probabilities[image]

    def samples(self, image: int) -> Floats:
        return self.draws[image]

    def cam(self, image: int) -> Floats:
        return self.cams[image]


def choose(
    name: str, context: Seen, candidates: Sequence[int], labelled: Sequence[int], wanted: int, seed: int = 0
) -> list[int]:
    return STRATEGIES[name].choose(context, candidates, labelled, wanted, rng(seed))


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
        counts[choose("random", Seen(), range(5), [], 2, seed)] += 1
    assert counts.min() > 150


def test_ties_are_broken_at_random_and_repeatably() -> None:
    firsts = [highest(range(5), [1.0] * 5, 1, rng(seed))[0] for seed in range(200)]
    assert set(firsts) == set(range(5))
    assert firsts == [highest(range(5), [1.0] * 5, 1, rng(seed))[0] for seed in range(200)]


def test_entropy_asks_for_the_undecided_image() -> None:
    view = Seen(probabilities=np.stack([np.full((4, 4), p) for p in (0.01, 0.9, 0.55, 0.0)]))
    assert choose("entropy", view, [0, 1, 2, 3], [], 1) == [2]
    assert choose("entropy", view, [0, 1, 2, 3], [], 2) == [1, 2]
    assert entropy(np.full((2, 2), 0.5)) == pytest.approx(np.log(2))
    assert 0 <= entropy(np.zeros((2, 2))) < 1e-5


def test_mc_dropout_asks_where_the_draws_differ() -> None:
    draws = np.full((3, 3, 4, 4), 0.5)
    draws[1] += np.array([-0.4, 0, 0.4])[:, None, None]
    assert choose("mc-dropout", Seen(draws=draws), [0, 1, 2], [], 1) == [1]


def test_disagreement_asks_where_cam_and_mask_say_different_things() -> None:
    half = np.zeros((4, 4))
    half[:2] = 1
    view = Seen(probabilities=np.stack([half] * 2), cams=np.stack([half, 1 - half]))
    assert choose("disagreement", view, [0, 1], [], 1) == [1]
    assert [disagreement(half, half), disagreement(half, 1 - half)] == [0, 1]
    assert disagreement(np.zeros((2, 2)), np.zeros((2, 2))) == 0


def test_core_set_takes_what_is_farthest_from_all_masks() -> None:
    points = np.array([[0, 0], [1, 0], [9, 0], [10, 0], [5, 20]], np.float64)
    assert choose("core-set", Seen(points=points), [1, 2, 3, 4], [0], 1) == [4]
    assert choose("core-set", Seen(points=points), [1, 2, 3, 4], [0], 2) == [3, 4]
    assert len(choose("core-set", Seen(points=points), range(5), [], 3)) == 3


def test_typical_takes_the_middle_of_every_heap() -> None:
    heaps = [rng(1).normal(centre, 0.3, (9, 2)) for centre in ((0, 0), (50, 0), (0, 50))]
    points = np.concatenate([np.concatenate([heap, heap.mean(axis=0, keepdims=True)]) for heap in heaps])
    chosen = choose("typical", Seen(points=points, has_model=False), range(30), [], 3)
    assert [index // 10 for index in chosen] == [0, 1, 2]
    outermost = [np.abs(heap - heap.mean(axis=0)).sum(axis=1).argmax() for heap in heaps]
    assert not {10 * heap + int(place) for heap, place in enumerate(outermost)} & set(chosen)
    others = choose("typical", Seen(points=points), [i for i in range(30) if i != 5], [5], 2)
    assert [index // 10 for index in others] == [1, 2]  # the first heap has a mask already


def turned(angles: Sequence[float]) -> Floats:
    """Images whose two places of a high CAM point in the same direction, and whose others tell more, but of nothing."""
    found = np.zeros((len(angles), 40, 3))
    for image, angle in zip(found, angles, strict=True):
        image[:2] = (10 * np.cos(angle), 10 * np.sin(angle), 1)
        image[2:, :2] = rng(int(1000 * angle)).normal(0, 30, (38, 2))
    return found


def test_v_optimal_asks_for_what_is_like_most_others_and_not_known_yet() -> None:
    view = Seen(has_model=False, grids=turned([0, 0.02, 0.04, 0.06, 1.5, 1.52, 1.54, 3.0]))
    (first,) = choose("v-optimal", view, range(8), [], 1)
    assert first in {0, 1, 2, 3}
    again = [index for index in range(8) if index != first]
    assert choose("v-optimal", view, again, [first], 1)[0] in {4, 5, 6}
    assert {min(index // 4, 1) for index in choose("v-optimal", view, range(8), [], 2)} == {0, 1}


def test_v_optimal_of_a_large_class_looks_at_some_images_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v_optimal, "MOST", 3)
    asked: list[int] = []

    @dataclass
    class Noting(Seen):
        def places(self, image: int) -> tuple[Floats, Floats]:
            asked.append(image)
            return super().places(image)

    view = Noting(grids=turned(np.linspace(0, 3, 9).tolist()))
    assert len(choose("v-optimal", view, range(1, 9), [0], 1)) == 1
    assert len(asked) == 1 + 3
    assert len(choose("v-optimal", view, range(1, 9), [0], 5)) == 5


@pytest.mark.parametrize("name", STRATEGIES)
def test_identical_images_and_few_of_them(name: str) -> None:
    same = Seen(
        points=np.ones((4, 2)),
        probabilities=np.ones((4, 4, 4)),
        draws=np.ones((4, 3, 4, 4)),
        cams=np.ones((4, 4, 4)),
        grids=np.ones((4, 40, 3)),
    )
    assert choose(name, same, [0, 1, 2], [3], 3) == [0, 1, 2]
    assert len(choose(name, same, [0, 1, 2], [3], 2)) == 2
    assert (
        len(choose(name, Seen(has_model=False, points=np.ones((4, 2)), grids=np.ones((4, 40, 3))), [0, 1, 2], [], 1))
        == 1
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_on_a_real_network_class_by_class_and_repeatably(name: str, tmp_path: Path) -> None:
    table = draw_dataset(tmp_path / "data", seed=3, train_per_class=4, test_per_class=1, size=(64, 96))
    dataset, given_settings = load_dataset(table), settings(UNTRAINED, query=name)
    trainer = Trainer(given_settings, "cpu")
    with Run(tmp_path / "run", given_settings, source=table, fingerprint="x").begin() as run:
        learner = Learner(dataset, read_images(dataset, trainer.settings.short_side), SimulatedOracle(), trainer, run)
        weights = weights_of(trainer.new_network(2, seed=0))
        run.save_theta0(weights)
        state = learner.begin(State(round=2, asked=[[0, 4]], weights=weights))
        chosen = learner.query(state)
        assert chosen == learner.query(state)
    assert sorted(learner.data.labels[index] for index in chosen) == [0, 1]
    assert not state.pool.labelled & set(chosen)


def test_every_strategy_is_a_module_with_one_line_about_it() -> None:
    assert list(STRATEGIES) == ["core-set", "disagreement", "entropy", "mc-dropout", "random", "typical", "v-optimal"]
    for strategy in STRATEGIES.values():
        assert 10 < len(strategy.description) < 100
        assert "\n" not in strategy.description


def test_the_network_has_the_dropout_that_its_strategy_needs() -> None:
    assert {name: settings(query=name).mask_dropout for name in STRATEGIES if settings(query=name).mask_dropout} == {
        "mc-dropout": 0.2
    }
    assert Trainer(settings(UNTRAINED, query="mc-dropout"), "cpu").new_network(2, 0).dropout.p == 0.2


def test_strategies_can_be_listed_without_torch_and_scipy() -> None:
    look = (
        "import sys; from training.settings import Settings; from training.query import STRATEGIES; "
        "print([it.description for it in STRATEGIES.values()], Settings(query='typical').query); "
        "print({'torch', 'scipy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.fixture
def toy() -> Iterator[str]:
    """A strategy that another program registers: the last images of each class."""

    def last(
        _context: QueryContext, candidates: Sequence[int], _labelled: Sequence[int], wanted: int, _: np.random.Generator
    ) -> list[int]:
        return sorted(candidates)[-wanted:]

    STRATEGIES.add("toy")(Strategy("the last images", last, mask_dropout=0.5))
    yield "toy"
    del STRATEGIES._parts["toy"]


def test_a_strategy_from_outside_asks_in_a_real_run(toy: str, tmp_path: Path) -> None:
    table = draw_dataset(tmp_path / "data", seed=3, train_per_class=3, test_per_class=1, size=(64, 96))
    chosen = Settings.of(None, {**UNTRAINED, "method": "masks-only", "query": toy})
    assert chosen.mask_dropout == 0.5
    run = train_run(table, tmp_path / "run", chosen)
    names = [
        [sample.name for sample in load_dataset(table).split("train") if sample.label == label] for label in (0, 1)
    ]
    asked = [sorted(record["asked"]) for record in run.rounds]
    assert asked == [sorted(members[-number] for members in names) for number in (1, 2)]
