"""Images of every kind and shape on the drawing page: what is drawn on lies where a run reads it."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
from chromium import needs_chromium, opened
from desk import asking, ready, settled
from pictures import encoded
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from web import Pixels, decoded

from alserve.files import write_atomic
from alserve.images.codec import decode_mask, read_image

pytestmark = needs_chromium

LAYER = """() => document.querySelector("#picture").toDataURL("image/png").split(",")[1]"""

DARK, BRIGHT = 30, 230

ORIENTATION = 0x0112
"""The tag of EXIF."""


def thing(height: int, width: int) -> Pixels:
    """A bright block on dark ground, which is in the middle of no image that is turned or mirrored."""
    image = np.full((height, width, 3), DARK, np.uint8)
    top, left = height // 2, width // 2 - 3
    image[top : top + max(3, min(40, height // 4)), left : left + max(3, min(40, width // 4))] = BRIGHT
    return image


def turned(image: Pixels, orientation: int) -> bytes:
    """A JPEG as a camera writes it that was held otherwise: a viewer shows `image`."""
    stored = {3: image[::-1, ::-1], 5: image.swapaxes(0, 1), 6: np.rot90(image), 8: np.rot90(image, -1)}[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(np.ascontiguousarray(stored), "JPEG", exif=exif, quality=95, subsampling=0)


def deep(image: Pixels, factor: int) -> bytes:
    """A PNG with samples of 16 bits."""
    return bytes(cv2.imencode(".png", image.astype(np.uint16) * factor)[1])


def transparent(image: Pixels) -> bytes:
    """A PNG in which nothing is opaque but the left half, where the block is not."""
    opacity = np.zeros((*image.shape[:2], 1), np.uint8)
    opacity[:, : image.shape[1] // 2] = 255
    return encoded(np.concatenate((image, opacity), axis=2))


KINDS = {
    "turned-3.jpg": turned(thing(96, 131), 3),
    "turned-5.jpg": turned(thing(96, 131), 5),
    "turned-6.jpg": turned(thing(96, 131), 6),
    "turned-8.jpg": turned(thing(131, 96), 8),
    "deep.png": deep(thing(96, 131), 257),
    "twelve.png": deep(thing(96, 131), 16),
    "deep.tif": encoded(Image.fromarray(thing(96, 131)[..., 0].astype(np.uint16) * 257), "TIFF"),
    "transparent.png": transparent(thing(96, 131)),
    "tiny.png": encoded(thing(16, 16)),
    "wide.png": encoded(thing(20, 5000)),
    "tall.png": encoded(thing(5000, 20)),
}


def seen(page: Page) -> tuple[float, float, float, float]:
    """Where in the window the block is shown: left, top, right and lower end."""
    layer = decoded(base64.b64decode(page.evaluate(LAYER)))
    rows, columns = np.nonzero((layer[..., 1] > (DARK + BRIGHT) // 2) & (layer[..., 3] > 0))
    box = page.locator("#picture").bounding_box()
    assert box is not None
    x, y = box["x"], box["y"]
    return x + int(columns.min()), y + int(rows.min()), x + int(columns.max()) + 1, y + int(rows.max()) + 1


@pytest.mark.parametrize("name", KINDS)
def test_what_is_drawn_lies_on_what_is_seen(browser: Browser, tmp_path: Path, name: str) -> None:
    write_atomic(tmp_path / "images" / name, KINDS[name])
    expected = read_image(tmp_path / "images" / name)[..., 1] > (DARK + BRIGHT) // 2
    assert expected.any()
    with asking(tmp_path, [name]) as desk, opened(browser, desk.address) as page:
        ready(page, name)
        if max(expected.shape) > 1000:
            page.keyboard.press("1")
            for _ in range(3):
                page.keyboard.press("+")
        settled(page)
        left, top, right, bottom = seen(page)
        page.keyboard.press("p")
        for corner in ((left, top), (right, top), (right, bottom), (left, bottom)):
            page.mouse.click(*corner)
        page.keyboard.press("Enter")
        expect(page.locator("#saving")).to_have_text("Saved")
        np.testing.assert_array_equal(decode_mask(next((tmp_path / "begun").iterdir()).read_bytes()), expected)
        page.keyboard.press("Enter")
        expect(page.locator("#count")).to_have_text("1 of 1 done")
