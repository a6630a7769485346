"""How drawn tissue looks: one of several stains, its bath, the thickness of the section, the lamp and the camera.

Tissue is given as amounts of some components; a stain gives each its colour, by the Beer-Lambert law.
"""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from alserve.arrays import Float32, UInt8
from alserve.geometry import resize
from training.data.texture import as_float, noise, soften

Absorbance = tuple[float, float, float]
"""Optical density in red, green and blue."""


class Stain(NamedTuple):
    """The optical density of each component of tissue, at an amount of 1."""

    nucleus: Absorbance
    cytoplasm: Absorbance
    """Of the epithelium in glands."""
    collagen: Absorbance
    mucin: Absorbance
    muscle: Absorbance
    """And blood."""


STAINS = {
    "haematoxylin-eosin": Stain(
        (0.62, 0.84, 0.48), (0.26, 0.52, 0.30), (0.13, 0.50, 0.34), (0.05, 0.10, 0.08), (0.20, 0.80, 0.55)
    ),
    "immunoperoxidase": Stain(
        (0.72, 0.62, 0.36), (0.26, 0.56, 0.80), (0.17, 0.13, 0.07), (0.03, 0.03, 0.05), (0.30, 0.24, 0.14)
    ),
    "masson-trichrome": Stain(
        (0.90, 0.90, 0.70), (0.24, 0.74, 0.50), (0.66, 0.33, 0.12), (0.32, 0.16, 0.06), (0.22, 0.88, 0.62)
    ),
    "periodic-acid-schiff": Stain(
        (0.66, 0.60, 0.26), (0.24, 0.28, 0.10), (0.08, 0.24, 0.14), (0.16, 0.92, 0.36), (0.16, 0.36, 0.18)
    ),
}


def develop(rng: Generator, parts: dict[str, Float32], size: tuple[int, int]) -> UInt8:
    """Turn tissue to light, each image with its own stain, section, lamp and camera.

    Args:
        rng: The source of everything random.
        parts: The amount of every component of a `Stain`, by its name: float32 [height, width] each, 0 and up.
        size: (height, width) of the result, in pixels.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    stain = STAINS[list(STAINS)[rng.integers(len(STAINS))]]
    colours = np.array([getattr(stain, name) for name in parts])
    colours *= rng.uniform(0.7, 1.3, (len(parts), 1)) * rng.uniform(0.92, 1.08, colours.shape)
    amounts = np.stack(list(parts.values()), axis=-1)
    thickness = 1 + 0.08 * noise(rng, amounts.shape[:2], 200)
    light = np.exp(-np.maximum(amounts * thickness[..., None], 0) @ as_float(colours))
    light = resize(soften(light, rng.uniform(0.4, 1.6)), size)
    white = rng.uniform(0.8, 1) * rng.uniform(0.95, 1, 3)
    pixels = 255 * light * white * _lamp(rng, size)[..., None] + rng.normal(0, 1.5, light.shape)
    return np.clip(pixels, 0, 255).round().astype(np.uint8)


def _lamp(rng: Generator, size: tuple[int, int]) -> Float32:
    """Return the lamp's light, brightest somewhere: float32 [height, width], 0 to 1."""
    rows, columns = np.indices(size, np.float32)
    centre = rng.uniform(0.2, 0.8, 2) * size
    distance = np.hypot(rows - centre[0], columns - centre[1]) / np.hypot(*size)
    return as_float(1 - rng.uniform(0, 0.6) * distance**2)
