"""Images larger than a tile on the drawing page: what is seen of them, and what is done to their whole mask at once."""

import base64
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from chromium import needs_chromium, opened
from desk import Desk, api, asking, ready, settled
from playwright.sync_api import Browser, Page, expect
from web import Pixels, decoded

from alserve.files import write_atomic
from alserve.images.codec import decode_mask, encode_jpeg
from training.annotate.browser.pictures import SIDE

pytestmark = needs_chromium

HEIGHT, WIDTH = 1501, 2603
NAME = "large.jpg"

VIEW = """() => {
  const canvas = document.querySelector("#picture");
  const data = canvas.toDataURL("image/png");
  return data.slice(data.indexOf(",") + 1);
}"""

FILLS = """async ([width, height, before, x, y, value]) => {
  const { Mask, fillArea } = await import("/page/mask.js");
  const mask = new Mask(width, height, Uint8Array.from(before));
  const isOpen = fillArea(mask, x, y, value);
  const after = [...mask.bits];
  const changed = mask.commit();
  if (changed) mask.undo();
  return [after, isOpen, changed, [...mask.bits]];
}"""


@pytest.fixture
def image() -> Pixels:
    """Blocks of 4 x 4 pixels, which are darker to the left and to the top: no two places look the same."""
    random = np.random.default_rng(0).integers(-40, 41, (HEIGHT // 4 + 1, WIDTH // 4 + 1, 1))
    blocks = np.kron(random, np.ones((4, 4, 1)))[:HEIGHT, :WIDTH]
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    slopes = np.stack((x / WIDTH, y / HEIGHT, 1 - x / WIDTH), axis=-1)
    return np.asarray(50 + 150 * slopes + blocks, np.uint8)


@pytest.fixture
def desk(tmp_path: Path, image: Pixels) -> Iterator[Desk]:
    write_atomic(tmp_path / "images" / NAME, encode_jpeg(image))
    with asking(tmp_path, [NAME]) as desk:
        yield desk


@pytest.fixture
def page(browser: Browser, desk: Desk) -> Iterator[Page]:
    with opened(browser, desk.address) as page:
        ready(page, NAME)
        yield page


def seen(page: Page) -> Pixels:
    """The picture's layer, RGB, once all tiles are there; without what lies outside of the image."""
    settled(page)
    layer = decoded(base64.b64decode(page.evaluate(VIEW)))
    rows, columns = np.nonzero(layer[..., 3])
    part = layer[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (part[..., 3] == 255).all()  # tiles join without seams
    return np.asarray(part[..., 2::-1], np.uint8)


def difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def test_a_large_image_is_whole_and_then_as_sharp_as_it_is(page: Page, image: Pixels) -> None:
    whole = seen(page)
    height, width = whole.shape[:2]
    assert abs(width / height - WIDTH / HEIGHT) < 0.02
    assert difference(whole, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)) < 6
    asked = page.evaluate("performance.getEntriesByType('resource').map((one) => one.name)")
    assert not [name for name in asked if "/tiles/" in name]  # the whole image, small, is enough

    page.keyboard.press("1")
    part = seen(page)
    height, width = part.shape[:2]
    found = cv2.matchTemplate(image, part, cv2.TM_SQDIFF)
    _, _, (left, top), _ = cv2.minMaxLoc(found)
    assert difference(part, image[top : top + height, left : left + width]) < 6  # pixel for pixel
    assert abs(left + width / 2 - WIDTH / 2) <= 2
    assert abs(top + height / 2 - HEIGHT / 2) <= 2


def test_a_page_without_its_command_shows_what_it_has(page: Page) -> None:
    page.route("**/tiles/**", lambda route: route.fulfill(status=404))
    page.keyboard.press("1")
    assert seen(page).shape[0] > 100
    page.unroute("**/tiles/**")
    page.wait_for_event("response", lambda response: "/tiles/" in response.url and response.ok)


def test_tiles_are_parts_of_the_image(desk: Desk, image: Pixels) -> None:
    (key,) = desk.session.drawings
    with api(desk) as client:

        def tile(level: int, column: int, row: int) -> Pixels:
            answer = client.get(f"/images/{key}/tiles/{level}/{column}/{row}").raise_for_status()
            return np.asarray(decoded(answer.content)[..., ::-1], np.uint8)

        assert difference(tile(0, 0, 0), image[:SIDE, :SIDE]) < 4
        assert difference(tile(0, 2, 1), image[SIDE:, 2 * SIDE :]) < 4
        half = cv2.resize(image[:, 2 * SIDE :], (278, 751), interpolation=cv2.INTER_AREA)
        assert difference(tile(1, 1, 0), half) < 4
        assert tile(30, 0, 0).shape == (1, 1, 3)
        for outside in ("0/3/0", "0/0/2", "1/2/0", "0/0/99999999999"):
            assert client.get(f"/images/{key}/tiles/{outside}").status_code == 400, outside
        for nonsense in ("0/-1/0", "a/0/0", "0/0", "0/0/0/0"):
            assert client.get(f"/images/{key}/tiles/{nonsense}").status_code == 404, nonsense
        assert max(decoded(client.get(f"/images/{key}/picture").content).shape) == SIDE


@pytest.mark.parametrize("seed", range(8))
def test_filling_an_area_is_filling_what_is_connected(page: Page, seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(random.integers(1, 40)), int(random.integers(1, 150)))
    mask = np.kron(random.random((8, 4)) < 0.35, np.ones((5, 40))).astype(np.uint8)[:height, :width]
    mask ^= random.random(mask.shape) < 0.02
    x, y = int(random.integers(width)), int(random.integers(height))
    value = int(1 - mask[y, x])
    _, areas = cv2.connectedComponents(np.asarray(mask != value, np.uint8), connectivity=4)
    area = areas == areas[y, x]
    bits = np.packbits(mask, axis=1).ravel()
    after, is_open, changed, undone = page.evaluate(FILLS, [width, height, bits.tolist(), x, y, value])
    expected = np.where(area, value, mask)
    np.testing.assert_array_equal(np.packbits(expected, axis=1).ravel(), after)
    assert is_open == all(side.any() for side in (area[0], area[-1], area[:, 0], area[:, -1]))
    assert changed
    assert undone == bits.tolist()


def test_clear_and_invert_of_a_large_mask_can_be_undone(page: Page, desk: Desk) -> None:
    def now() -> np.ndarray:
        expect(page.locator("#saving")).to_have_text("Saved")
        return decode_mask((desk.folder / "begun" / "large.png").read_bytes())

    page.keyboard.press("i")
    assert now().all()
    page.keyboard.press("c")
    assert not now().any()
    page.keyboard.press("z")
    assert now().all()
    page.keyboard.press("z")
    assert not now().any()
    expect(page.locator("#undo")).to_be_disabled()
    page.keyboard.press("y")
    assert now().all()
