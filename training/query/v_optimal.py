"""V-optimal: the images whose masks tell most of the class (Yu, Bi & Tresp, ICML 2006), from the first masks on.

A mask gives the answer at every place of its image. For a linear model of the encoder's features, the variance of what
it predicts depends on where answers are known, not on what they are, so the images after whose masks the mean variance
is lowest can be chosen before there is any mask (transductive experimental design). The places that count are those
where the CAM of the image's class is high: elsewhere is background, of which every mask has plenty.
"""

from collections.abc import Sequence

import numpy as np

from alserve.arrays import Float64, Floats
from training.query import STRATEGIES, QueryContext, Strategy

SHARE = 20
"""One in so many places of an image is looked at, where the CAM is highest."""

PLACES = 64
"""Places of an image, at most."""

DIMENSIONS = 50
"""Principal components of the features that the linear model sees, at most."""

RIDGE = 0.1
"""Precision of the prior of the linear model's weights, over that which one image brings in the mean."""

MOST = 500
"""Candidates that are looked at, unless more masks are wanted: drawn at random where a class has more."""


def v_optimal(
    context: QueryContext, candidates: Sequence[int], labelled: Sequence[int], wanted: int, rng: np.random.Generator
) -> list[int]:
    """Choose one by one the image whose mask lowers the mean variance of the predictions most.

    See `training.query.Choose`.
    """
    if len(candidates) > max(MOST, wanted):
        candidates = sorted(rng.choice(candidates, max(MOST, wanted), replace=False).tolist())
    images = [*labelled, *candidates]
    moments = _moments([_at_high_cam(*context.places(image), rng) for image in images])
    everywhere = moments.mean(axis=0)
    known = RIDGE * np.eye(len(everywhere)) + moments[: len(labelled)].sum(axis=0)
    left = list(range(len(labelled), len(images)))
    chosen: list[int] = []
    while len(chosen) < wanted:
        variances = np.einsum("kij,ji->k", np.linalg.inv(known + moments[left]), everywhere)
        best = left.pop(int(variances.argmin()))
        known += moments[best]
        chosen.append(images[best])
    return sorted(chosen)


def _at_high_cam(features: Floats, cam: Floats, rng: np.random.Generator) -> Floats:
    """Return the features at some of the places where the CAM is highest: [places, channels]."""
    highest = np.argsort(-cam, kind="stable")[: -(-len(cam) // SHARE)]
    return np.asarray(features[rng.choice(highest, min(PLACES, len(highest)), replace=False)])


def _moments(images: Sequence[Floats]) -> Float64:
    """Return each image's mean of x x^T over its places, x being their principal components and 1.

    Args:
        images: Features of the places of each image, [places, channels].

    Returns:
        [images, dimensions, dimensions].
    """
    from scipy.linalg import eigh  # noqa: PLC0415

    every = np.concatenate(images)
    mean, scale = every.mean(axis=0), every.std(axis=0) + 1e-6
    channels = every.shape[1]
    covariance = np.cov((every - mean) / scale, rowvar=False, bias=True).reshape(channels, channels)
    kept = min(DIMENSIONS, channels)
    strengths, axes = eigh(covariance, subset_by_index=[channels - kept, channels - 1])
    axes /= np.sqrt(max(strengths.mean(), 1e-6))
    known = (np.column_stack([((own - mean) / scale) @ axes, np.ones(len(own))]) for own in images)
    return np.stack([own.T @ own / len(own) for own in known])


STRATEGIES.add("v-optimal")(
    Strategy("the masks that leave least unknown of the class's features where its CAM is high", v_optimal)
)
