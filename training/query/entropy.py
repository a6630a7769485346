"""Entropy: the images whose mask the network is least sure of."""

import numpy as np

from alserve.arrays import Floats
from training.query import STRATEGIES, Strategy
from training.query.ranking import by_score


def entropy(probability: Floats) -> float:
    """Return the mean binary entropy of the pixels' probabilities, in nats: 0 to log 2."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())


STRATEGIES.add("entropy")(
    Strategy(
        "the highest mean binary entropy of the mask's pixels",
        by_score(lambda context, image: entropy(context.probability(image))),
    )
)
