"""Drawn pictures, encoded in every way that users do."""

import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

Pixels = npt.NDArray[np.uint8]


def picture(height: int = 96, width: int = 128, seed: int = 0) -> Pixels:
    """Soft blobs of colour, so that lossy formats keep them: uint8 [height, width, 3], RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def encoded(pixels: npt.NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Encode with Pillow, which is not what the software under test decodes with."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def imagej_tiff(pixels: Pixels, um_per_pixel: float) -> bytes:
    """Encode as ImageJ does, with the size of a pixel."""
    tags = ImageFileDirectory_v2()
    tags[270] = b"ImageJ=1.54f\nimages=1\nunit=micron\n"
    tags[282] = tags[283] = 1 / um_per_pixel
    tags[296] = 1
    return encoded(pixels, "TIFF", tiffinfo=tags)
