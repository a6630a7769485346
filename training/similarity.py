"""Which images of a class look alike: colour histograms and the Jensen-Shannon divergence between them."""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.distance import cdist
from torchvision.transforms.v2 import functional as transform

from training.dataset import Image

HEIGHT = 128
SATURATION = 3.0
SIGMA = 0.9
BINS = 256
EPSILON = 1e-8

Float = npt.NDArray[np.float64]


def histograms(image: Image) -> Float:
    """Give one colour histogram a channel, as in method.md: resized, saturated, blurred.

    Args:
        image: uint8 [height, width, 3], RGB.

    Returns:
        float64 [3, 256], each row positive with sum 1.
    """
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    pixels = transform.resize(pixels, [HEIGHT, max(1, round(HEIGHT * image.shape[1] / image.shape[0]))], antialias=True)
    pixels = transform.to_dtype(pixels, torch.float32, scale=True)
    pixels = transform.gaussian_blur(transform.adjust_saturation(pixels, SATURATION), [3, 3], [SIGMA, SIGMA])
    pixels = pixels.clamp(0, 1)  # rounding in the blur lifts pure white just out of the histogram's range
    counts = np.stack([np.histogram(channel, bins=BINS, range=(0, 1))[0] for channel in pixels.numpy()]) + EPSILON
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def distances(images: Sequence[Image]) -> Float:
    """Measure how different the images of one class are.

    Per channel the Jensen-Shannon divergence (natural logarithm), divided by its sum over the class; the channels
    are added (Belharbi et al., WACV 2021).

    Args:
        images: uint8 [height, width, 3], RGB, of any size.

    Returns:
        float64 [images, images], symmetric, zero on the diagonal.
    """
    described = np.stack([histograms(image) for image in images])
    total = np.zeros((len(images), len(images)))
    for channel in range(described.shape[1]):
        divergence = cdist(described[:, channel], described[:, channel], "jensenshannon") ** 2  # SciPy gives the root
        np.fill_diagonal(divergence, 0)
        total += divergence / max(divergence.sum(), EPSILON)
    return total


def neighbours(images: Sequence[Image], labels: Sequence[int], k: float) -> list[list[int]]:
    """Find every image's k nearest neighbours of its own class, itself left out.

    Args:
        images: uint8 [height, width, 3], RGB, of any size.
        labels: Class of every image.
        k: How many neighbours; below 1, a fraction of the class (at least one).

    Returns:
        Indices of the neighbours, nearest first, for every image.
    """
    found: list[list[int]] = [[] for _ in images]
    for label in sorted(set(labels)):
        members = [index for index, other in enumerate(labels) if other == label]
        count = max(1, round(k * len(members))) if k < 1 else int(k)
        between = distances([images[index] for index in members])
        np.fill_diagonal(between, np.inf)
        for row, index in enumerate(members):
            nearest = np.argsort(between[row], kind="stable")[: min(count, len(members) - 1)]
            found[index] = [members[column] for column in nearest]
    return found


def within_reach(unlabelled: Collection[int], labelled: Collection[int], nearest: Sequence[Sequence[int]]) -> list[int]:
    """Select U'': every unlabelled image that has a labelled one among its nearest neighbours."""
    known = set(labelled)
    return sorted(index for index in unlabelled if known.intersection(nearest[index]))
