"""Entropy: the images whose mask the network is least sure of."""

from alserve.certainty import entropy
from training.query import STRATEGIES, Strategy
from training.query.ranking import by_score

STRATEGIES.add("entropy")(
    Strategy(
        "the highest mean binary entropy of the mask's pixels",
        by_score(lambda context, image: entropy(context.probability(image))),
    )
)
