"""Algorithm 1 of Belharbi et al., "Deep Active Learning for Joint Classification & Segmentation with Weak Annotator".

WACV 2021, arXiv:2010.04889. Each step is a method of `Learner`; the numbers are those of the steps:

    0.  theta0: encoder and CAM head trained on D with its class labels, a new decoder.
    1.  Ask the oracle for the first masks: L. P is empty.
    2.  In each round:
        a.  theta <- theta0.
        b.  Train on L and P.
        c.  Choose the mask threshold.
        d.  Query: ask the oracle for more masks; L grows.
        e.  U'': the unlabelled images that are near a labelled one.
        f.  P <- P and U''; pseudo-label P.
    3.  The model of the last round, with its threshold, is the result.

Here each round begins with its masks, and a, b, c, e and f are done in every pass.
"""

from collections.abc import Callable, Mapping
from typing import Any

from alserve.terminal import say
from training.learning.learner import Learner
from training.learning.neighbours import within_reach
from training.run.folder import Run
from training.run.state import weights_of
from training.settings import Settings

Record = Mapping[str, Any]
"""The results of a round, as `rounds.jsonl` has them."""


def learn(learner: Learner, run: Run, settings: Settings, done: Callable[[Record], None] | None = None) -> bool:
    """Go through all rounds, from where the saved state is; it is saved after every query and every pass.

    Args:
        learner: The steps.
        run: Where the state is kept.
        settings: Rounds and passes.
        done: Called with the record of each round that is finished.

    Returns:
        False where a person has to draw masks first.
    """
    saved = run.load_state()
    if saved.round > len(settings.schedule):
        return True
    state = learner.begin(saved)  # 0
    nearest = learner.nearest()
    while state.round <= len(settings.schedule):
        if not learner.gather_masks(state):  # 1, and 2d of the round before
            return False
        while state.passes < settings.passes_a_round:
            if settings.learns_from_cams:  # without any mask
                state.pseudo = learner.draw_seeds(state)
                state.pool.add_pseudo(state.pseudo.keys())
            net = learner.train(state)  # 2a, 2b
            state.threshold, state.threshold_reason = learner.choose_threshold(net, state)  # 2c
            if settings.learns_from_pseudo:
                state.pool.add_pseudo(within_reach(state.pool.unlabelled, state.pool.labelled, nearest))  # 2e
                state.pseudo = learner.pseudo_label(net, state)  # 2f
            state.weights = weights_of(net)
            state.passes += 1
            run.save_state(state)
        record = learner.publish(state)  # 3
        state.records.append(record)
        state.round, state.passes = state.round + 1, 0
        run.save_state(state)
        say(describe(record))
        if done is not None:
            done(record)
    return True


def describe(record: Record) -> str:
    """Return a round's figures in one line; where test images are empty, the Dice of those with foreground leads."""
    pseudo_dice = record.get("pseudo_dice")
    figures = [
        f"{record['masks_used']} masks",
        f"{record['pseudo_labels']} pseudo-masks{'' if pseudo_dice is None else f' (Dice {100 * pseudo_dice:.1f} %)'}",
        f"threshold {record['threshold']:.2f}",
    ]
    if record.get("test_false_alarms") is None:
        measured = [("test_dice", "test Dice {}")]
    else:
        measured = [
            ("test_foreground_dice", "test Dice of images with foreground {}"),
            ("test_found", "{} of them found"),
            ("test_false_alarms", "false alarms on {} of the empty ones"),
        ]
    for key, words in (*measured, ("test_accuracy", "test accuracy {}")):
        if (value := record.get(key)) is not None:
            figures.append(words.format(f"{100 * value:.1f} %"))
    return f"round {record['round']}: {', '.join(figures)}"
