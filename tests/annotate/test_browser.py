"""Masks drawn on the page as a person draws them: a real browser, a real server, and the files that come of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import needs_chromium, opened
from desk import NAMES, Desk, api, at, brushed, laid_out, line, ready, rectangle, saved, set_size, stroke
from pictures import encoded
from playwright.sync_api import Browser, Page, expect

from alserve.files import write_atomic

pytestmark = needs_chromium

DEAF = """
window.realFetch = fetch;
window.fetch = (path, ...rest) => (path === "status" ? new Promise(() => {}) : realFetch(path, ...rest));
"""
"""From now on the page does not learn what others do."""

FOCUS = "document.activeElement.id || document.activeElement.dataset.tool || document.activeElement.role"

NAMED = "(it) => it.ariaLabel || it.labels?.[0]?.textContent || it.title || it.textContent"


@pytest.fixture
def page(browser: Browser, desk: Desk) -> Iterator[Page]:
    with opened(browser, desk.address) as page:
        ready(page, NAMES[0])
        yield page


@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_a_stroke_is_in_the_mask_pixel_by_pixel(page: Page, desk: Desk, size: int) -> None:
    places = ((30, 20), (70, 45), (20, 80), (20, 60), (129, 94))
    set_size(page, size)
    stroke(page, *places)
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), brushed(size, *places))
    assert not list((desk.folder / "masks").rglob("*.png"))  # it is not done yet
    expect(page.get_by_role("option").first).to_contain_text("begun")

    page.keyboard.press("e")
    stroke(page, (30, 20), (60, 20))
    saved(page)
    left = brushed(size, *places) & ~brushed(size, (30, 20), (60, 20))
    np.testing.assert_array_equal(desk.begun("a/1"), left)

    page.keyboard.press("Enter")
    ready(page, NAMES[1])
    np.testing.assert_array_equal(desk.finished("a/1"), left)
    assert not (desk.folder / "begun" / "a" / "1.png").exists()
    expect(page.locator("#count")).to_have_text("1 of 3 done")


def test_polygon_fill_clear_and_invert(page: Page, desk: Desk) -> None:
    expected = rectangle(10, 12, 50, 40)
    page.keyboard.press("p")
    for corner in ((10, 12), (50, 12), (50, 40), (10, 40)):
        page.mouse.click(*at(page, corner[0] - 0.5, corner[1] - 0.5))  # a corner lies between pixels
    page.keyboard.press("Enter")
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), expected)

    page.keyboard.press("b")
    set_size(page, 3)
    outline = ((70, 20), (110, 20), (110, 70), (70, 70), (70, 20))
    stroke(page, *outline)
    page.keyboard.press("f")
    page.mouse.click(*at(page, 90, 40))
    saved(page)
    expected |= brushed(3, *outline) | rectangle(70, 20, 110, 70)
    np.testing.assert_array_equal(desk.begun("a/1"), expected)

    page.mouse.click(*at(page, 2, 2))  # outside of everything
    expect(page.locator("#note")).to_contain_text("the outline is open")
    page.mouse.click(*at(page, 20, 20), button="right")  # takes the polygon away
    saved(page)
    expected &= ~rectangle(10, 12, 50, 40)
    np.testing.assert_array_equal(desk.begun("a/1"), expected)

    page.keyboard.press("i")
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), ~expected)
    page.keyboard.press("c")
    saved(page)
    assert not desk.begun("a/1").any()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), expected)


def test_undo_takes_a_corner_back_before_a_change(page: Page, desk: Desk) -> None:
    stroke(page, (20, 60), (60, 60))
    page.keyboard.press("p")
    for corner in ((10, 12), (50, 12), (90, 70), (50, 40), (10, 40)):
        page.mouse.click(*at(page, corner[0] - 0.5, corner[1] - 0.5))
        if corner == (90, 70):
            page.locator("#undo").click()
    page.keyboard.press("Enter")
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), brushed(20, (20, 60), (60, 60)) | rectangle(10, 12, 50, 40))
    page.locator("#undo").click()
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), brushed(20, (20, 60), (60, 60)))


def test_the_first_image_says_what_to_do_and_help_begins_at_its_top(browser: Browser, desk: Desk) -> None:
    with opened(browser, desk.address, viewport={"width": 390, "height": 700}) as page:
        ready(page, NAMES[0])
        expect(page.locator("#note")).to_have_text("Paint all that the model is to find, then press Done.")
        page.locator("#help-open").click()
        expect(page.get_by_role("heading", name="How to draw")).to_be_in_viewport(ratio=1)
        expect(page.get_by_role("button", name="Close")).to_be_in_viewport(ratio=1)
        page.keyboard.press("Escape")
        for name in NAMES:
            ready(page, name)
            page.keyboard.press("s")
        expect(page.locator("#finish")).to_be_in_viewport(ratio=1)


def test_undo_and_redo(page: Page, desk: Desk) -> None:
    first, second = ((20, 20), (60, 20)), ((40, 10), (40, 60))
    set_size(page, 9)
    stroke(page, *first)
    stroke(page, *second)
    both = brushed(9, *first) | brushed(9, *second)
    for press, expected in (("z", brushed(9, *first)), ("z", both & False), ("y", brushed(9, *first)), ("y", both)):
        page.keyboard.press(press)
        saved(page)
        np.testing.assert_array_equal(desk.begun("a/1"), expected)
    page.keyboard.press("z")
    stroke(page, (100, 50), (100, 60))
    expect(page.locator("#redo")).to_be_disabled()
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), brushed(9, *first) | brushed(9, (100, 50), (100, 60)))


def test_skip_nothing_here_and_taking_them_back(page: Page, desk: Desk) -> None:
    masks = desk.folder / "masks"
    stroke(page, (20, 20), (60, 20))
    drawn = brushed(20, (20, 20), (60, 20))
    page.keyboard.press("s")
    ready(page, NAMES[1])
    assert (masks / "a" / "1.skip").read_bytes() == b""
    page.get_by_role("button", name="Nothing here").click()
    ready(page, NAMES[2])
    assert (masks / "a" / "2.empty").is_file()
    assert not desk.finished("a/2").any()
    expect(page.locator("#count")).to_have_text("2 of 3 done")

    page.get_by_role("option").first.click()
    ready(page, NAMES[0])
    expect(page.locator("#note")).to_contain_text("Skipped")
    stroke(page, (20, 60), (60, 60))  # nobody can draw here now
    page.get_by_role("button", name="Draw it after all").click()
    expect(page.get_by_role("option").first).to_contain_text("begun")
    ready(page, NAMES[0])
    assert not (masks / "a" / "1.skip").exists()
    np.testing.assert_array_equal(desk.begun("a/1"), drawn)
    page.keyboard.press("Enter")
    ready(page, NAMES[2])
    np.testing.assert_array_equal(desk.finished("a/1"), drawn)

    page.get_by_role("option").nth(1).click()
    ready(page, NAMES[1])
    page.keyboard.press("r")
    expect(page.get_by_role("option").nth(1)).to_contain_text("to draw")
    assert not list(masks.rglob("2.*"))
    expect(page.locator("#count")).to_have_text("1 of 3 done")


def test_an_empty_mask_and_an_inverted_one_are_asked_about(page: Page, desk: Desk) -> None:
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Keep drawing").click()
    stroke(page, (40, 40), (60, 50))
    page.keyboard.press("i")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="It is right as it is").click()
    ready(page, NAMES[1])
    assert (desk.folder / "masks" / "a" / "1.full").is_file()
    np.testing.assert_array_equal(desk.finished("a/1"), ~brushed(20, (40, 40), (60, 50)))
    page.keyboard.press("Enter")
    page.locator("#question").get_by_role("button", name="Nothing here").click()
    ready(page, NAMES[2])
    assert (desk.folder / "masks" / "a" / "2.empty").is_file()


def test_the_page_goes_on_where_it_was_when_it_is_loaded_again(page: Page, desk: Desk) -> None:
    stroke(page, (20, 20), (60, 20))
    saved(page)
    page.reload()
    ready(page, NAMES[0])
    expect(page.get_by_role("option").first).to_contain_text("begun")
    set_size(page, 5)
    stroke(page, (80, 20), (80, 60))
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), brushed(20, (20, 20), (60, 20)) | brushed(5, (80, 20), (80, 60)))


def test_a_draft_becomes_the_mask_only_when_it_is_accepted(browser: Browser, tmp_path: Path) -> None:
    with laid_out(tmp_path, draft=rectangle(30, 30, 80, 60)) as desk, opened(browser, desk.address) as page:
        ready(page, NAMES[0])
        expect(page.locator("#note")).to_contain_text("draft")
        page.keyboard.press("PageDown")
        ready(page, NAMES[1])
        assert not list(tmp_path.glob("masks/**/*.png")) + list(tmp_path.glob("begun/**/*.png"))
        page.keyboard.press("PageUp")
        ready(page, NAMES[0])
        page.keyboard.press("Enter")
        ready(page, NAMES[1])
        np.testing.assert_array_equal(desk.finished("a/1"), rectangle(30, 30, 80, 60))


def test_a_paint_program_may_be_mixed_in(page: Page, desk: Desk) -> None:
    path = desk.folder / "masks" / "a" / "1.png"
    write_atomic(path, encoded(rectangle(5, 5, 50, 50).astype(np.uint8)))
    expect(page.get_by_role("option").first).to_contain_text("drawn")
    expect(page.locator("#note")).to_contain_text("Done")
    page.keyboard.press("e")
    stroke(page, (20, 20), (20, 20))
    saved(page)
    left = rectangle(5, 5, 50, 50) & ~brushed(20, (20, 20))
    np.testing.assert_array_equal(desk.begun("a/1"), left)

    page.evaluate(DEAF)
    write_atomic(path, encoded(rectangle(60, 60, 70, 70).astype(np.uint8)))
    stroke(page, (40, 40), (40, 40))
    page.get_by_role("button", name="Keep what is drawn here").click()
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), left & ~brushed(20, (40, 40)))
    write_atomic(path, encoded(rectangle(60, 60, 70, 70).astype(np.uint8)))
    stroke(page, (10, 40), (10, 40))
    page.get_by_role("button", name="Take the other one").click()
    ready(page, NAMES[0])
    page.keyboard.press("b")
    stroke(page, (10, 40), (10, 40))
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), rectangle(60, 60, 70, 70) | brushed(20, (10, 40)))


def test_zoom_and_pan_move_the_image_and_not_the_mask(page: Page, desk: Desk) -> None:
    set_size(page, 1)
    page.mouse.move(*at(page, 100, 30))
    page.mouse.wheel(0, -700)
    page.mouse.down()
    page.mouse.up()  # under the pointer is still the same pixel
    page.mouse.move(*at(page, 100, 30))
    page.keyboard.down(" ")
    page.mouse.down()
    page.mouse.move(*at(page, 80, 40))
    page.mouse.up()
    page.keyboard.up(" ")
    page.keyboard.press("e")
    page.keyboard.press("b")
    page.keyboard.press("0")
    stroke(page, (7, 9), (7, 9))
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), line((100, 30), (100, 30), 1) | line((7, 9), (7, 9), 1))


def test_the_keyboard_draws_and_reaches_everything(page: Page, desk: Desk) -> None:
    set_size(page, 5)
    page.locator("#stage").focus()
    page.keyboard.press("Shift+ArrowRight")  # from the centre, (65, 48)
    page.keyboard.press("x")
    for _ in range(4):
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("x")
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), brushed(5, (66, 48), (66, 52)))

    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("How to draw")
    page.keyboard.press("Escape")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(FOCUS))
    buttons = {"help-open", "undo", "clear", "fit", "in", "out", "done", "empty", "skip"}
    assert buttons | {"option", "stage", "brush", "size", "opacity", "brightness", "contrast"} <= reached
    page.locator("[aria-selected=true]").focus()
    page.keyboard.press("ArrowDown")
    ready(page, NAMES[1])
    expect(page.locator("[aria-selected=true]")).to_be_focused()
    for control in page.locator("button, input, [role=option], iframe, dialog, progress").all():
        assert control.evaluate(NAMED), control


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 740), (780, 360), (1600, 740)])
def test_no_window_needs_sideways_scrolling(browser: Browser, desk: Desk, width: int, height: int, scheme: str) -> None:
    with opened(browser, desk.address, viewport={"width": width, "height": height}, color_scheme=scheme) as page:
        ready(page, NAMES[0])
        assert page.evaluate("document.documentElement.scrollWidth") == width
        expect(page.locator("#done")).to_be_in_viewport()
        ground, ink = page.evaluate("['backgroundColor', 'color'].map((name) => getComputedStyle(document.body)[name])")
        brightness = [sum(map(int, colour[4:-1].split(","))) for colour in (ground, ink)]
        assert (brightness[0] > brightness[1]) == (scheme == "light")


def test_the_end_waits_for_all_images_and_for_the_person(page: Page, desk: Desk) -> None:
    page.keyboard.press("s")
    ready(page, NAMES[1])
    expect(page.locator("#finish")).to_be_hidden()
    with api(desk) as client:
        assert client.post("/finish").status_code == 400
    page.keyboard.press("s")
    ready(page, NAMES[2])
    stroke(page, (20, 20), (60, 20))
    page.keyboard.press("Enter")
    expect(page.locator("#finish")).to_be_focused()
    assert not desk.session.wait(0)
    page.keyboard.press("Enter")
    expect(page.locator("#ended-title")).to_have_text("All is drawn")
    assert desk.session.wait(0)
