"""What a program may pass as an image, and what is refused with advice."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import encoded, picture
from PIL import Image

from alserve.errors import ImageError
from alserve.images.inputs import is_image, path_of, pixels_of

PIXELS = picture(30, 40)
GREY = PIXELS[..., 0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PIXELS, PIXELS),
        (PIXELS[::2, ::-1], PIXELS[::2, ::-1]),
        (np.dstack([PIXELS, GREY]), PIXELS),
        (GREY, np.dstack([GREY] * 3)),
        (GREY[..., None], np.dstack([GREY] * 3)),
        (PIXELS / 255, PIXELS),
        ((PIXELS / 255).astype(np.float32), PIXELS),
        (encoded(PIXELS), PIXELS),
        (bytearray(encoded(PIXELS)), PIXELS),
        (Image.fromarray(PIXELS), PIXELS),
        (Image.fromarray(GREY), np.dstack([GREY] * 3)),
        (Image.fromarray(np.dstack([PIXELS, GREY]), "RGBA"), PIXELS),
        (Image.fromarray(GREY > 100), np.dstack([np.where(GREY > 100, 255, 0)] * 3)),
        (torch.from_numpy(PIXELS), PIXELS),
    ],
)
def test_it_becomes_rgb(given: Any, expected: np.ndarray[Any, Any]) -> None:
    assert is_image(given)
    found = pixels_of(given)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_a_palette_of_pillow_is_looked_up() -> None:
    few = Image.fromarray(PIXELS).quantize(8)
    np.testing.assert_array_equal(pixels_of(few), np.asarray(few.convert("RGB")))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (PIXELS.astype(np.float32), "values from .* to 255; scale it to 0..1, or to 0..255 in uint8"),
        (np.full((4, 4, 3), -0.5), "values from -0.5 to -0.5; scale it"),
        (np.full((4, 4, 3), np.nan), "values that are no numbers"),
        (np.full((4, 4, 3), np.inf), "to inf; scale it"),
        (GREY.astype(np.uint16), "uint16; divide it by 256"),
        (GREY.astype(np.int64), "int64 is no image; give uint8"),
        (GREY > 3, "bool is no image; give uint8"),
        (np.zeros((3, 30, 40), np.uint8), r"move the channels last, with \.transpose\(1, 2, 0\)"),
        (np.zeros((2, 30, 40, 3), np.uint8), r"pass several images as list\(array\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\) is no image; give a path"),
        (np.zeros(7, np.uint8), r"shape \(7,\) is no image"),
        (Image.fromarray(GREY.astype(np.uint16) * 256), "mode I;16 has more than 8 bits"),
        (Image.open(io.BytesIO(encoded(PIXELS)[:-60])), "this Pillow image cannot be read"),
        (5, "^int is no image; give a path"),
        (None, "^NoneType is no image"),
    ],
)
def test_what_is_no_image_is_refused_with_advice(given: Any, words: str) -> None:
    assert is_image(given)
    with pytest.raises(ImageError, match=words):
        pixels_of(given)


@pytest.mark.parametrize(
    "several", [[], [PIXELS], ("a.png",), iter(["a.png"]), np.array(["a.png", "b.png"]), {"a.png"}]
)
def test_several_are_no_image(several: Any) -> None:
    assert not is_image(several)


def test_paths() -> None:
    assert (path_of("a.png"), path_of(Path("a.png")), path_of(PIXELS)) == (Path("a.png"), Path("a.png"), None)
