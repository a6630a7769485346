"""Random textures and maps of distance, of which drawn images are made."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from alserve.arrays import Float32, Mask


def noise(rng: Generator, shape: tuple[int, ...], scale: float) -> Float32:
    """Return smooth noise of mean 0 and deviation about 1, with blobs of `scale` pixels: float32 [height, width]."""
    coarse = rng.standard_normal([int(side / scale) + 4 for side in shape], np.float32)
    return as_float(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def soften(pixels: npt.NDArray[Any], sigma: float) -> Float32:
    """Blur by a Gaussian of `sigma` pixels: float32, of the same shape."""
    return as_float(cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), sigma))


def depth_inside(inside: Mask) -> Float32:
    """Return the distance of every inside pixel from the outside, in pixels: float32 [height, width]."""
    return as_float(cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5))


def smear(texture: Float32, angle: Float32) -> Float32:
    """Smear a texture along a direction field, in radians: a line integral convolution by doubling."""
    rows, columns = np.indices(texture.shape, np.float32)
    x, y = np.cos(angle), np.sin(angle)
    smeared = texture
    for step in (2, 4, 8):
        ahead, behind = (
            cv2.remap(smeared, columns + s * x, rows + s * y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            for s in (step, -step)
        )
        smeared = as_float((smeared + ahead + behind) / 2)
    return smeared


def as_float(values: npt.NDArray[Any] | cv2.typing.MatLike) -> Float32:
    """Return the values as float32."""
    return np.asarray(values, np.float32)
