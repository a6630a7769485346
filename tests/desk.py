"""A folder of images to draw, a real server of the drawing page on it, and what a person's hand does there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from pictures import encoded, picture
from playwright.sync_api import Page, expect
from web import decoded

from alserve.arrays import Mask
from alserve.files import write_atomic
from training.annotate.browser.drawing import Drawing
from training.annotate.browser.server import serving
from training.annotate.browser.session import Session

HEIGHT, WIDTH = 96, 131
NAMES = ("a/1.jpg", "a/2.jpg", "b/3.tif")


STILL = """async () => {
  for (let still = 0, before = 0; still < 5; still += 1) {
    await new Promise((done) => setTimeout(done, 100));
    const now = performance.getEntriesByType("resource").length;
    if (now !== before) still = 0;
    before = now;
  }
}"""
"""Waits until nothing was loaded for half a second."""


class Desk(NamedTuple):
    """A folder with images to draw, and the page that is open on it."""

    folder: Path
    session: Session
    address: str

    def begun(self, name: str) -> Mask:
        return mask_in(self.folder / "begun" / f"{name}.png")

    def finished(self, name: str) -> Mask:
        return mask_in(self.folder / "masks" / f"{name}.png")


def mask_in(path: Path) -> Mask:
    """A mask as it is stored: one channel of 0 and 255, of the image's own size."""
    pixels = decoded(path.read_bytes())
    assert pixels.shape == (HEIGHT, WIDTH)
    assert set(np.unique(pixels)) <= {0, 255}
    return pixels > 0


@contextmanager
def laid_out(folder: Path, *, draft: Mask | None = None) -> Iterator[Desk]:
    for seed, name in enumerate(NAMES):
        kind = "TIFF" if name.endswith("tif") else "JPEG"
        write_atomic(folder / "images" / name, encoded(picture(HEIGHT, WIDTH, seed), kind))
    if draft is not None:
        write_atomic(folder / "drafts" / "a" / "1.png", encoded(draft.astype(np.uint8) * 255))
    with asking(folder, NAMES) as desk:
        yield desk


@contextmanager
def asking(folder: Path, names: Sequence[str]) -> Iterator[Desk]:
    """Ask for the masks of images that lie in the folder."""
    session = Session(learns=False)
    session.ask([Drawing(folder, name) for name in names])
    with serving(folder, session, opens=False) as address:
        yield Desk(folder, session, address)


def api(desk: Desk, **headers: str) -> httpx.Client:
    address, _, token = desk.address.partition("#")
    return httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}", **headers})


def ready(page: Page, name: str) -> None:
    """Wait until an image can be drawn on."""
    expect(page.locator("#name")).to_have_text(name)
    expect(page.locator("#note")).not_to_have_text("Loading …")


def settled(page: Page) -> None:
    """Wait until all that is seen of the image is there."""
    page.evaluate(STILL)


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where the centre of a pixel of the whole image is in the window."""
    box = page.locator("#overlay").bounding_box()
    assert box is not None
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT) * 0.96
    left, top = (box["width"] - WIDTH * scale) / 2, (box["height"] - HEIGHT * scale) / 2
    return box["x"] + left + (x + 0.5) * scale, box["y"] + top + (y + 0.5) * scale


def stroke(page: Page, *pixels: tuple[int, int]) -> None:
    page.mouse.move(*at(page, *pixels[0]))
    page.mouse.down()
    for pixel in pixels[1:]:
        page.mouse.move(*at(page, *pixel))
    page.mouse.up()


def set_size(page: Page, size: int) -> None:
    page.locator("#size").fill(f"{np.log(size) / np.log(1000):.3f}")
    expect(page.locator("#size-value")).to_have_text(f"{size} px")


def saved(page: Page) -> None:
    expect(page.locator("#saving")).to_have_text("Saved")


def line(start: tuple[int, int], end: tuple[int, int], size: int) -> Mask:
    """The pixels whose distance to a line between two pixels is at most half a brush: the rule, in whole numbers."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.int64)
    (ax, ay), (bx, by) = start, end
    dx, dy = bx - ax, by - ay
    along, square = (x - ax) * dx + (y - ay) * dy, dx * dx + dy * dy
    beside = (x - ax) * dy - (y - ay) * dx
    ends = np.where(along <= 0, (x - ax) ** 2 + (y - ay) ** 2, (x - bx) ** 2 + (y - by) ** 2)
    between = (along > 0) & (along < square)
    return np.asarray(np.where(between, 4 * beside**2 <= size**2 * square, 4 * ends <= size**2), np.bool_)


def brushed(size: int, *pixels: tuple[int, int]) -> Mask:
    drawn = line(pixels[0], pixels[0], size)
    for start, end in pairwise(pixels):
        drawn |= line(start, end, size)
    return drawn


def rectangle(left: int, top: int, right: int, bottom: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[top:bottom, left:right] = True
    return mask
