"""The laws of the sets L, U and P, whatever happens to them."""

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from alserve.errors import DataError
from training.learning.pool import Pool


class Rounds(RuleBasedStateMachine):
    """Masks and pseudo-masks come in any order; after each the sets still fit together."""

    @initialize(labels=st.lists(st.integers(0, 2), min_size=1, max_size=12), data=st.data())
    def start(self, labels: list[int], data: st.DataObject) -> None:
        everything = st.sets(st.sampled_from(range(len(labels))))
        empty = data.draw(st.sampled_from([None, 0, 1, 2]))
        known_empty = frozenset(index for index, label in enumerate(labels) if label == empty)
        self.pool = Pool(tuple(labels), frozenset(data.draw(everything)), known_empty)
        self.given: set[int] = set()

    @rule(label=st.integers(0, 2), wanted=st.integers(1, 4), seed=st.integers(0, 9))
    def ask(self, label: int, wanted: int, seed: int) -> None:
        free = {i for i, other in enumerate(self.pool.labels) if other == label and i in self.pool.askable} - self.given
        if len(free) < wanted:
            with pytest.raises(DataError, match=f"{wanted} masks wanted, but only {len(free)}"):
                self.pool.candidates(label, wanted)
            return
        offered = self.pool.candidates(label, wanted)
        unprotected = free - self.pool.pseudo
        assert set(offered) == (unprotected if len(unprotected) >= wanted else free)
        assert offered == sorted(set(offered))
        chosen = sorted(int(index) for index in np.random.default_rng(seed).choice(offered, wanted, replace=False))
        assert len(set(chosen)) == wanted
        assert set(chosen) <= set(offered)
        self.pool.add_masks(chosen)
        self.given |= set(chosen)

    @precondition(lambda self: self.pool.unlabelled)
    @rule(data=st.data())
    def pseudo_label(self, data: st.DataObject) -> None:
        before = set(self.pool.pseudo)
        chosen = data.draw(st.sets(st.sampled_from(sorted(self.pool.unlabelled))))
        self.pool.add_pseudo(chosen)
        assert self.pool.pseudo == before | chosen

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def no_pseudo_mask_in_the_place_of_an_experts(self, data: st.DataObject) -> None:
        with pytest.raises(ValueError, match="in L"):
            self.pool.add_pseudo({data.draw(st.sampled_from(sorted(self.given)))})

    @precondition(lambda self: self.pool.known_empty)
    @rule(data=st.data())
    def no_pseudo_mask_of_a_class_without_foreground(self, data: st.DataObject) -> None:
        with pytest.raises(ValueError, match="known to be empty"):
            self.pool.add_pseudo({data.draw(st.sampled_from(sorted(self.pool.known_empty)))})

    @invariant()
    def the_sets_fit_together(self) -> None:
        pool, everything = self.pool, set(range(len(self.pool.labels)))
        assert pool.labelled == self.given
        assert pool.labelled | pool.unlabelled | pool.known_empty == everything
        assert not pool.labelled & pool.unlabelled
        assert not pool.known_empty & (pool.labelled | pool.unlabelled | pool.askable)
        assert pool.pseudo <= pool.unlabelled
        assert sorted(i for label in range(3) for i in pool.of_class(label, everything)) == sorted(everything)


TestRounds = Rounds.TestCase


def test_a_pseudo_labelled_image_is_protected_while_others_remain() -> None:
    pool = Pool((0, 0, 0, 1), frozenset(range(4)))
    pool.add_pseudo({0, 1})
    assert pool.candidates(0, 1) == [2]
    assert pool.candidates(0, 2) == [0, 1, 2]
