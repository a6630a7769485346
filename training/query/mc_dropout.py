"""MC-dropout (Gal & Ghahramani, ICML 2016): the images whose mask varies most under dropout."""

from alserve.arrays import Floats
from training.query import STRATEGIES, Strategy
from training.query.ranking import by_score

DROPOUT = 0.2
"""As published (Belharbi et al., WACV 2021)."""


def variance(samples: Floats) -> float:
    """Return the mean over the pixels of the variance over the draws, [draws, height, width] 0 to 1: 0 to 1/4."""
    return float(samples.var(axis=0).mean())


STRATEGIES.add("mc-dropout")(
    Strategy(
        "the highest variance of the mask's pixels over 50 draws of dropout",
        by_score(lambda context, image: variance(context.samples(image))),
        mask_dropout=DROPOUT,
    )
)
