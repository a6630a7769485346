"""Step 2c of Algorithm 1: the mask threshold of a trained network."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from training.learning.data import TrainingData
from training.learning.state import LearningState
from training.learning.threshold import best_threshold, otsu_threshold
from training.model.network import JointNet
from training.model.phases import Trainer
from training.seeds import derive_seed

MORE_LIKELY_THAN_NOT = 0.5


def choose_threshold(
    net: JointNet, state: LearningState, data: TrainingData, trainer: Trainer, start: Callable[[], JointNet]
) -> float:
    """Choose the threshold: on split 'valid' where its masks are used, by cross-validation inside L where not.

    Cross-validation takes time: it is done for the round's last pass, whose model is served. The passes before it only
    make pseudo-masks, of the pixels that are foreground more likely than not. Without any mask it is Otsu's threshold.

    Args:
        net: The network after this pass.
        state: The sets L and P.
        data: The images.
        trainer: Trains and predicts.
        start: Returns a network with the weights of theta0, as often as it is called.

    Returns:
        0.05 to 0.99; see `training.learning.threshold`.
    """
    if data.settings.mask_from_cams:
        return otsu_threshold(probability for probability, _ in trainer.predict(net, data.images))
    if data.valid:
        images, truths = data.validation()
        return best_threshold((probability for probability, _ in trainer.predict(net, images)), truths)
    if state.passes + 1 == data.settings.passes_a_round and len(state.pool.labelled) > 1:
        return _cross_validate(state, data, trainer, start)
    return MORE_LIKELY_THAN_NOT


def _cross_validate(state: LearningState, data: TrainingData, trainer: Trainer, start: Callable[[], JointNet]) -> float:
    """Train on P and on parts of L, the encoder frozen, with a third of the steps; choose on the parts left out."""
    settings = data.settings
    seed = derive_seed(settings.seed, 3, state.round, state.passes)
    shuffled = np.random.default_rng(seed).permutation(sorted(state.pool.labelled))
    order = sorted((int(index) for index in shuffled), key=lambda index: data.labels[index])
    folds = min(settings.folds, len(order))
    short = {"steps": max(1, settings.steps // 3), "encoder_lr": 0.0}
    trainer = replace(trainer, settings=settings.model_copy(update=short))
    others = data.with_pseudo(state.pseudo, state.pool.pseudo)
    probabilities, truths = [], []
    for fold in range(folds):
        held_out = order[fold::folds]
        net = start()
        examples = data.with_masks(state.masks, set(order) - set(held_out))
        name = f"threshold, part {fold + 1} of {folds}"
        trainer.train_segmenter(net, examples, others, derive_seed(seed, fold), name)
        predicted = trainer.predict(net, (data.images[index] for index in held_out))
        probabilities += [probability for probability, _ in predicted]
        truths += [state.masks[index] for index in held_out]
    return best_threshold(probabilities, truths)
