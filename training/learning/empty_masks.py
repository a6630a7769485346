"""Masks without foreground after a round: those that an expert gave, and those that the model predicts."""

from alserve.terminal import say
from training.learning.data import TrainingData
from training.learning.pool import evenly
from training.learning.state import LearningState
from training.model.network import JointNet
from training.model.trainer import Trainer

LEAST_MASKS = 3
"""Fewest masks of a class, all empty, from which on it seems to have no foreground."""

PER_CLASS, LEAST_PER_CLASS, IN_ALL = 20, 5, 400
"""Training images that are looked at: of a class at most and at least, where it has them, and of all classes."""

MOST = 0.5
"""Share of empty masks above which the model does not find a class's objects."""


def warn_of_empty_masks(net: JointNet, state: LearningState, data: TrainingData, trainer: Trainer) -> dict[str, object]:
    """Say which classes have only empty masks, and of which others the model predicts mostly empty ones.

    Returns:
        What belongs into the round's record: `always_empty`, names of classes whose masks so far, `LEAST_MASKS` or
        more, are all empty, if there are any; and `empty_masks`, the share of empty predictions, 0 to 1, by class.
    """
    names, found = data.dataset.classes, always_empty(state, data)
    for label in found:
        count, name = len(state.pool.of_class(label, state.pool.labelled)), names[label]
        say(
            f"class {name}: all {count} masks so far are empty; if it never has foreground, run with "
            f"--empty-class {name}: no more masks are asked for it"
        )
    shares: dict[str, float] = {}
    for label in data.foreground_classes:
        if label in found:
            continue
        images = _some(label, state, data)
        empty = sum(
            not (probability > state.threshold).any()
            for probability, _ in trainer.predict(net, (data.images[index] for index in images))
        )
        if images:
            shares[names[label]] = empty / len(images)
        if empty > MOST * len(images):
            advice = (
                "a larger --short-side" if trainer.settings.without_masks else "more masks, or a larger --short-side"
            )
            say(
                f"class {names[label]}: {empty} of {len(images)} training images get an empty mask; the model does not "
                f"find its objects ({advice})"
            )
    return {**({"always_empty": [names[label] for label in found]} if found else {}), "empty_masks": shares}


def always_empty(state: LearningState, data: TrainingData) -> list[int]:
    """Return the classes whose masks in L, `LEAST_MASKS` or more, are all empty; not those that are known to be."""
    masks = {label: state.pool.of_class(label, state.pool.labelled) for label in data.foreground_classes}
    return [
        label
        for label, members in masks.items()
        if len(members) >= LEAST_MASKS and not any(state.masks[index].any() for index in members)
    ]


def _some(label: int, state: LearningState, data: TrainingData) -> list[int]:
    """Return images of a class at even steps through it, without those whose mask in L is empty."""
    members = [
        index
        for index in state.pool.of_class(label, range(len(data)))
        if index not in state.masks or state.masks[index].any()
    ]
    count = min(PER_CLASS, max(LEAST_PER_CLASS, IN_ALL // len(data.foreground_classes)))
    return evenly(members, count)
