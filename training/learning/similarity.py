"""Similarity of the images of a class: the Jensen-Shannon divergence between their colour histograms."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.distance import pdist, squareform
from torchvision.transforms.v2 import functional as transform

from alserve.arrays import Float64, Image
from alserve.files import write_atomic
from alserve.parallel import ordered_map
from alserve.runtime.device import available_cores

HEIGHT = 128
SATURATION = 3.0
SIGMA = 0.9
BINS = 256
EPSILON = 1e-8

Counts = npt.NDArray[np.uint32]


def count_colours(image: Image) -> Counts:
    """Count the pixels of every intensity, channel by channel, of the image resized, saturated and blurred.

    Height 128, saturation x 3, Gaussian 3 x 3 with sigma 0.9 (Belharbi et al., WACV 2021).

    Args:
        image: uint8 [height, width, 3], RGB.

    Returns:
        uint32 [3, 256].
    """
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    pixels = transform.resize(pixels, [HEIGHT, max(1, round(HEIGHT * image.shape[1] / image.shape[0]))], antialias=True)
    pixels = transform.to_dtype(pixels, torch.float32, scale=True)
    pixels = transform.gaussian_blur(transform.adjust_saturation(pixels, SATURATION), [3, 3], [SIGMA, SIGMA])
    levels = (pixels * BINS).to(torch.int64).clamp_(0, BINS - 1).flatten(1).numpy()
    return np.stack([np.bincount(channel, minlength=BINS) for channel in levels]).astype(np.uint32)


def describe(images: Iterable[Image]) -> Counts:
    """Count the colours of many images on all cores; they are drawn one by one, so that not all need be in memory.

    Args:
        images: uint8 [height, width, 3], RGB, of any size.

    Returns:
        uint32 [images, 3, 256], see `count_colours`.
    """
    return np.fromiter(ordered_map(count_colours, images, available_cores()), np.dtype((np.uint32, (3, BINS))))


def describe_once(images: Iterable[Image], folder: Path, source: str) -> Counts:
    """Return what `describe` returns, from a file where it was computed before for the same images.

    Args:
        images: See `describe`; not read where the counts are known.
        folder: Where the counts are kept, in files named by what they depend on.
        source: Identifies the images: a fingerprint of the data, and the size they were resized to.
    """
    key = hashlib.sha256(repr((source, HEIGHT, SATURATION, SIGMA, BINS)).encode()).hexdigest()
    path = folder / f"colours-{key[:16]}.npz"
    if path.is_file():
        with (
            suppress(OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error),
            np.load(path) as file,
        ):
            return np.asarray(file["counts"])  # a damaged file is written again
    counts, buffer = describe(images), io.BytesIO()
    np.savez_compressed(buffer, counts=counts)
    write_atomic(path, buffer.getvalue())
    return counts


def histograms(counts: Counts) -> Float64:
    """Turn counts [.., 256] into distributions, float64 [.., 256]: each positive, with sum 1."""
    raised = counts + EPSILON
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def distances(counts: Counts) -> Float64:
    """Measure how different the images of one class are; memory grows with the square of their number.

    Per channel the Jensen-Shannon divergence (natural logarithm), divided by its sum over the class; the channels
    are added (Belharbi et al., WACV 2021).

    Args:
        counts: uint32 [images, 3, 256], see `describe`.

    Returns:
        float64 [images, images], symmetric, zero on the diagonal.
    """
    described = histograms(counts)
    total = np.zeros(len(described) * (len(described) - 1) // 2)  # of every pair once
    for channel in range(described.shape[1]):
        divergence = pdist(described[:, channel], "jensenshannon") ** 2  # SciPy returns the root
        total += divergence / max(2 * divergence.sum(), EPSILON)
    return np.asarray(squareform(total))
