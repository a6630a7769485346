"""Masks drawn on the page as a person draws them: a real browser, a real server, and the files that come of it."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest
from chromium import launched, needs_chromium, opened
from pictures import encoded, picture
from playwright.sync_api import Browser, Page, expect
from web import claiming_png, decoded

from alserve.arrays import Mask
from alserve.files import write_atomic
from alserve.service.page import HEADERS
from training.annotate.browser.drawing import Drawing
from training.annotate.browser.server import serving
from training.annotate.browser.session import Session
from training.annotate.browser.site import OWN

HEIGHT, WIDTH = 96, 131
NAMES = ("a/1.jpg", "a/2.jpg", "b/3.tif")


DEAF = """
window.realFetch = fetch;
window.fetch = (path, ...rest) => (path === "status" ? new Promise(() => {}) : realFetch(path, ...rest));
"""
"""From now on the page does not learn what others do."""

OTHERS = (
    ("Host", "rebound.example"),
    ("Host", "127.0.0.1.example"),
    ("Origin", "http://evil.example"),
    ("Origin", "null"),
)

FOCUS = "document.activeElement.id || document.activeElement.dataset.tool || document.activeElement.role"

NAMED = "(it) => it.ariaLabel || it.labels?.[0]?.textContent || it.title || it.textContent"


class Desk(NamedTuple):
    """A folder with images to draw, and the page that is open on it."""

    folder: Path
    session: Session
    address: str

    def begun(self, name: str) -> Mask:
        return mask_in(self.folder / "drawing" / f"{name}.png")

    def finished(self, name: str) -> Mask:
        return mask_in(self.folder / "masks" / f"{name}.png")


def mask_in(path: Path) -> Mask:
    """A mask as it is stored: one channel of 0 and 255, of the image's own size."""
    pixels = decoded(path.read_bytes())
    assert pixels.shape == (HEIGHT, WIDTH)
    assert set(np.unique(pixels)) <= {0, 255}
    return pixels > 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with laid_out(tmp_path) as desk:
        yield desk


@contextmanager
def laid_out(folder: Path, *, draft: Mask | None = None) -> Iterator[Desk]:
    for seed, name in enumerate(NAMES):
        kind = "TIFF" if name.endswith("tif") else "JPEG"
        write_atomic(folder / "images" / name, encoded(picture(HEIGHT, WIDTH, seed), kind))
    if draft is not None:
        write_atomic(folder / "drafts" / "a" / "1.png", encoded(draft.astype(np.uint8) * 255))
    session = Session(learns=False)
    session.ask([Drawing(folder, name) for name in NAMES])
    with serving(folder, session, opens=False) as address:
        yield Desk(folder, session, address)


@pytest.fixture
def page(browser: Browser, desk: Desk) -> Iterator[Page]:
    with opened(browser, desk.address) as page:
        ready(page, NAMES[0])
        yield page


def ready(page: Page, name: str) -> None:
    """Wait until an image can be drawn on."""
    expect(page.locator("#name")).to_have_text(name)
    expect(page.locator("#note")).not_to_have_text("Loading …")


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


@needs_chromium
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
    assert not (desk.folder / "drawing" / "a" / "1.png").exists()
    expect(page.locator("#count")).to_have_text("1 of 3 done")


@needs_chromium
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


@needs_chromium
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


@needs_chromium
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
    stroke(page, (20, 20), (60, 20))
    saved(page)
    assert not list(masks.rglob("2.*"))
    expect(page.locator("#count")).to_have_text("1 of 3 done")


@needs_chromium
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


@needs_chromium
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


@needs_chromium
def test_a_draft_becomes_the_mask_only_when_it_is_accepted(browser: Browser, tmp_path: Path) -> None:
    with laid_out(tmp_path, draft=rectangle(30, 30, 80, 60)) as desk, opened(browser, desk.address) as page:
        ready(page, NAMES[0])
        expect(page.locator("#note")).to_contain_text("draft")
        page.keyboard.press("PageDown")
        ready(page, NAMES[1])
        assert not list(tmp_path.glob("masks/**/*.png")) + list(tmp_path.glob("drawing/**/*.png"))
        page.keyboard.press("PageUp")
        ready(page, NAMES[0])
        page.keyboard.press("Enter")
        ready(page, NAMES[1])
        np.testing.assert_array_equal(desk.finished("a/1"), rectangle(30, 30, 80, 60))


@needs_chromium
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


@needs_chromium
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


@needs_chromium
def test_two_fingers_zoom_and_do_not_draw(page: Page, desk: Desk) -> None:
    def touch(kind: str, finger: int, x: float, y: float) -> None:
        place = dict(zip(("clientX", "clientY"), at(page, x, y), strict=True))
        page.evaluate(
            "([kind, init]) => document.querySelector('#stage').dispatchEvent(new PointerEvent(kind, init))",
            [kind, {**place, "pointerId": finger, "pointerType": "touch", "bubbles": True, "cancelable": True}],
        )

    page.evaluate("Element.prototype.setPointerCapture = () => {}")  # there is no real finger to capture
    set_size(page, 3)
    touch("pointerdown", 11, 60, 50)
    touch("pointermove", 11, 62, 50)
    touch("pointerdown", 12, 80, 50)
    touch("pointermove", 12, 120, 50)
    touch("pointerup", 12, 120, 50)
    touch("pointerup", 11, 62, 50)
    expect(page.locator("#undo")).to_be_disabled()
    page.keyboard.press("0")
    touch("pointerdown", 13, 40, 50)
    touch("pointermove", 13, 60, 50)
    touch("pointerup", 13, 60, 50)
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), brushed(3, (40, 50), (60, 50)))


@needs_chromium
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


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_no_window_needs_sideways_scrolling(browser: Browser, desk: Desk, width: int, scheme: str) -> None:
    with opened(browser, desk.address, viewport={"width": width, "height": 740}, color_scheme=scheme) as page:
        ready(page, NAMES[0])
        assert page.evaluate("document.documentElement.scrollWidth") == width
        expect(page.locator("#done")).to_be_in_viewport()
        ground, ink = page.evaluate("['backgroundColor', 'color'].map((name) => getComputedStyle(document.body)[name])")
        brightness = [sum(map(int, colour[4:-1].split(","))) for colour in (ground, ink)]
        assert (brightness[0] > brightness[1]) == (scheme == "light")


@needs_chromium
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


def api(desk: Desk, **headers: str) -> httpx.Client:
    address, _, token = desk.address.partition("#")
    return httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}", **headers})


def test_only_who_has_the_address_is_answered(desk: Desk) -> None:
    (key, *_) = desk.session.drawings
    paths = ("/status", "/report", f"/images/{key}/picture", f"/images/{key}/mask", "/nowhere")
    with (
        api(desk, Authorization="") as stranger,
        api(desk, Authorization="Bearer wrong") as guesser,
        api(desk) as friend,
    ):
        for client in (stranger, guesser):
            assert {client.get(path).status_code for path in paths} == {403}
            assert client.put(f"/images/{key}/mask", content=b"x" * 100_000).status_code == 403
            assert client.post(f"/images/{key}/skip").status_code == client.post("/finish").status_code == 403
        assert stranger.get("/report?token=wrong").status_code == 403
        assert [friend.get(path).status_code for path in paths] == [200, 404, 200, 200, 404]
        for header, value in OTHERS:
            other = {header: value}
            assert friend.get("/status", headers=other).status_code == friend.get("/", headers=other).status_code == 403
        assert friend.get("/status", headers={"Host": "localhost:1234"}).status_code == 200  # a tunnel's own port
        assert friend.post("/status").status_code == friend.put("/finish").status_code == 405
        assert friend.delete(f"/images/{key}/mask").status_code == 405
    assert not list((desk.folder / "masks").rglob("*.skip"))


def test_bodies_that_are_no_mask_are_refused(desk: Desk) -> None:
    (key, *_) = desk.session.drawings
    bits = np.packbits(rectangle(5, 5, 50, 50), axis=1).tobytes()
    good = zlib.compress(bits)
    bomb = zlib.compress(bytes(10**8), 9)
    with api(desk, **{"If-Match": "none"}) as client:

        def put(body: bytes, image: str = key) -> tuple[int, str]:
            answer = client.put(f"/images/{image}/mask", content=body)
            return answer.status_code, answer.json().get("error", "")

        for body, words in (
            (b"", "no mask of 131 x 96"),
            (b"hello", "no deflated mask"),
            (claiming_png(50_000, 50_000), "no deflated mask"),
            (good[:-3], "no mask of 131 x 96"),
            (good + b"more", "no mask of 131 x 96"),
            (zlib.compress(bits[:-1]), "no mask of 131 x 96"),
            (zlib.compress(bits + b"\0"), "no mask of 131 x 96"),
            (bomb[:2000], "no mask of 131 x 96"),
        ):
            status, said = put(body)
            assert (status, words in said) == (400, True), (body[:20], said)
        assert put(b"x" * 1_000_000)[0] == 413
        for image in ("../masks", "..%2f..%2fetc", "a%2F1", "0" * 16, "%00"):
            assert client.put(f"/images/{image}/mask", content=good).status_code in {404, 405}, image
        assert client.post(f"/images/{key}/nonsense").status_code == 404
        assert not list(desk.folder.rglob("drawing/**/*.png"))
        assert put(good)[0] == 200
        np.testing.assert_array_equal(desk.begun("a/1"), rectangle(5, 5, 50, 50))
        assert put(zlib.compress(bytes(len(bits))))[0] == 412  # of a version that is no more


def test_the_picture_and_the_mask_are_what_a_run_reads(desk: Desk) -> None:
    with api(desk) as client:
        for key, drawing in desk.session.drawings.items():
            seen = decoded(client.get(f"/images/{key}/picture").raise_for_status().content)
            expected = picture(HEIGHT, WIDTH, NAMES.index(drawing.name))[..., ::-1]
            assert np.abs(seen.astype(int) - expected).mean() < 4
            assert client.get(f"/images/{key}/mask").headers["x-size"] == f"{WIDTH} {HEIGHT}"


def test_every_file_of_the_page_comes_with_the_headers_and_names_no_other_host(desk: Desk) -> None:
    names = ["/", "/page/house.css", *(f"/page/{path.name}" for path in OWN.iterdir())]
    with api(desk) as client:
        for name in names:
            answer = client.get(name).raise_for_status()
            assert {key: answer.headers.get(key) for key in HEADERS} == HEADERS
            assert b"https://" not in answer.content
            assert b"style=" not in answer.content
        assert client.get("/page/../site.py").status_code == client.get("/page/nothing.js").status_code == 404
