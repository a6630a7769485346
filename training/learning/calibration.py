"""Step 2c of Algorithm 1: the mask threshold of a trained network."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from training.learning.data import TrainingData
from training.learning.state import LearningState
from training.learning.threshold import MORE_LIKELY_THAN_NOT, Threshold, best_threshold, otsu_threshold
from training.model.network import JointNet
from training.model.trainer import Lesson, Trainer
from training.seeds import derive_seed


def choose_threshold(
    net: JointNet, state: LearningState, data: TrainingData, trainer: Trainer, start: Callable[[], JointNet]
) -> Threshold:
    """Choose the threshold: on split 'valid' where its masks are used, or by cross-validation inside L if that is set.

    Otherwise a pixel is foreground where that is more likely than not. Cross-validation is done for the round's last
    pass, whose model is served; the passes before it only make pseudo-masks. Where CAMs are the masks it is Otsu's
    threshold.

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
    last = state.passes + 1 == data.settings.passes_a_round
    if data.settings.folds and last and len(state.pool.labelled) > 1:
        return _cross_validate(state, data, trainer, start)
    return MORE_LIKELY_THAN_NOT


def _cross_validate(
    state: LearningState, data: TrainingData, trainer: Trainer, start: Callable[[], JointNet]
) -> Threshold:
    """Train on P and on parts of L with a third of the steps; choose on the parts left out."""
    settings = data.settings
    seed = derive_seed(settings.seed, 3, state.round, state.passes)
    shuffled = np.random.default_rng(seed).permutation(sorted(state.pool.labelled))
    order = sorted((int(index) for index in shuffled), key=lambda index: data.labels[index])
    folds = min(settings.folds, len(order))
    short = {"steps": max(1, settings.steps // 3), "method": "masks-only"}
    trainer = replace(trainer, settings=settings.model_copy(update=short))
    others = data.with_pseudo(state.pseudo, state.pool.pseudo)
    probabilities, truths = [], []
    for fold in range(folds):
        held_out = order[fold::folds]
        net = start()
        lesson = Lesson(data.with_masks(state.masks, set(order) - set(held_out)), others, data.with_classes())
        trainer.train_segmenter(net, lesson, derive_seed(seed, fold), f"threshold, part {fold + 1} of {folds}")
        predicted = trainer.predict(net, (data.images[index] for index in held_out))
        probabilities += [probability for probability, _ in predicted]
        truths += [state.masks[index] for index in held_out]
    return best_threshold(probabilities, truths)
