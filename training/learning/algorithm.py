"""Algorithm 1 of Belharbi et al., "Deep Active Learning for Joint Classification & Segmentation with Weak Annotator".

WACV 2021, arXiv:2010.04889. Each verb is a method of `Learner`; the step numbers are those of the paper's listing.
"""

from collections.abc import Mapping
from typing import Any

from alserve.terminal import say
from training.learning.learner import Learner, weights_of
from training.learning.similarity import within_reach
from training.run.folder import Run
from training.settings import Settings


def learn(learner: Learner, run: Run, settings: Settings) -> bool:
    """Go through all rounds, from where the state says; it is saved after every query and every pass.

    Returns:
        False where a person has to draw masks first.
    """
    state = run.load_state()
    if state.round > len(settings.schedule):
        return True
    theta0 = learner.theta0()  # 0: encoder and CAM head from class labels, a fresh decoder
    pool = learner.new_pool(state)
    nearest = learner.nearest()
    while state.round <= len(settings.schedule):
        if not learner.gather_masks(pool, theta0, state):  # 1 and 2d: query, the oracle gives masks, L grows
            return False
        while state.passes < settings.passes_a_round:
            net = learner.train(theta0, pool, state)  # 2a, 2b: from theta0, on L and P
            state.threshold = learner.choose_threshold(net, theta0, pool, state)  # 2c
            if settings.learns_from_pseudo:
                pool.add_pseudo(within_reach(pool.unlabelled, pool.labelled, nearest))  # 2e: P <- P and U''
                state.pseudo = learner.pseudo_label(net, pool, state.threshold)  # 2f
            state.weights = weights_of(net)
            state.passes += 1
            run.save_state(state)
        record = learner.publish(learner.network(state.weights), pool, state)  # 3: the model of this round
        state.records.append(record)
        state.round, state.passes = state.round + 1, 0
        run.save_state(state)
        say(describe(record))
    return True


def describe(record: Mapping[str, Any]) -> str:
    """Say a round's figures in one line."""
    measured = [(name, record.get(f"test_{name}")) for name in ("dice", "accuracy")]
    pseudo_dice = record.get("pseudo_dice")
    figures = [
        f"{record['masks_used']} masks",
        f"{record['pseudo_labels']} pseudo-masks{'' if pseudo_dice is None else f' (Dice {100 * pseudo_dice:.1f} %)'}",
        f"threshold {record['threshold']:.2f}",
        *(f"test {name} {100 * value:.1f} %" for name, value in measured if value is not None),
    ]
    return f"round {record['round']}: {', '.join(figures)}"
