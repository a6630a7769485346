"""The objects on the page: counted, listed, marked in the picture, and saved as the server makes them."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from chromium import needs_chromium, opened
from playwright.sync_api import Browser, Page, expect

from alserve.images.codec import decode
from alserve.objects import find_objects
from alserve.outputs import OUTPUTS
from alserve.predictor import Predictor
from alserve.service.page import STATIC

pytestmark = needs_chromium

EXAMPLE = min((STATIC / "examples").iterdir())


@pytest.fixture
def page(browser: Browser, client: httpx.Client) -> Iterator[Page]:
    """The page with the answer for `EXAMPLE`."""
    with opened(browser, str(client.base_url)) as page:
        page.set_input_files("#files", EXAMPLE)
        expect(page.locator("[data-state=done]")).to_have_count(1)
        yield page


def drawn(page: Page) -> npt.NDArray[np.uint8]:
    """The picture on the page: uint8 [height, width, 3]."""
    url = page.locator("#picture").evaluate("(canvas) => canvas.toDataURL()")
    return decode(base64.b64decode(url.partition(",")[2]))


def listed_areas(page: Page) -> list[int]:
    return [int(cell.replace(",", "")) for cell in page.locator("#objects td:nth-child(2)").all_inner_texts()]


def wait_until_marked(page: Page, bare: npt.NDArray[np.uint8]) -> None:
    """Wait for a white box that the picture has not by itself."""
    end = time.monotonic() + 30
    while ((now := drawn(page)) > 250).all(axis=-1)[(bare != now).any(axis=-1)].sum() < 100:
        assert time.monotonic() < end


def test_objects_are_counted_listed_and_marked(page: Page, predictor: Predictor) -> None:
    rows = page.locator("#objects tbody tr")
    for threshold in (0.5, 0.9):
        page.locator("#threshold").fill(str(threshold))
        items = find_objects(predictor.predict(EXAMPLE).mask(threshold))
        areas = sorted((item.area for item in items), reverse=True)
        end = time.monotonic() + 30  # they are counted when the threshold rests
        while listed_areas(page) != pytest.approx(areas, abs=0.01 * max(areas)):
            assert time.monotonic() < end
        expect(page.locator("#objects-count")).to_contain_text(f"{len(areas)} objects, ")
    bare = drawn(page)
    rows.first.hover()
    wait_until_marked(page, bare)
    page.mouse.move(0, 0)
    rows.first.focus()
    page.keyboard.press("ArrowDown")
    expect(rows.nth(1)).to_be_focused()
    wait_until_marked(page, bare)


def test_no_objects(page: Page) -> None:
    page.locator("#threshold").fill("1")
    expect(page.locator("#objects-count")).to_have_text("none")
    expect(page.locator("#objects")).to_be_hidden()


@pytest.mark.parametrize("output", ["objects", "polygons", "coco", "cutout"])
def test_other_outputs_are_saved_as_the_server_makes_them(page: Page, client: httpx.Client, output: str) -> None:
    page.locator("#threshold").fill("0.7")
    with page.expect_download() as waiting:
        page.locator(f"[data-format={output}]").click()
    query = {"format": output, "threshold": "0.7"}
    expected = client.post("/segment", params=query, content=EXAMPLE.read_bytes()).raise_for_status().content
    assert waiting.value.suggested_filename == f"{EXAMPLE.stem}_{output}{OUTPUTS[output].suffix}"
    assert Path(waiting.value.path()).read_bytes() == expected
