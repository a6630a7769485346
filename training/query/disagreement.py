"""Disagreement: the images of which class activation map and mask say different things."""

import numpy as np

from alserve.arrays import Floats
from training.query import STRATEGIES, Strategy
from training.query.ranking import by_score


def disagreement(cam: Floats, probability: Floats) -> float:
    """Return 1 - soft Dice of CAM and mask, both [height, width] 0 to 1: 0 where equal, 1 where they share nothing."""
    total = float(cam.sum() + probability.sum())
    return 1 - 2 * float(np.minimum(cam, probability).sum()) / total if total else 0.0


STRATEGIES.add("disagreement")(
    Strategy(
        "the lowest soft Dice between class activation map and mask",
        by_score(lambda context, image: disagreement(context.cam(image), context.probability(image))),
    )
)
