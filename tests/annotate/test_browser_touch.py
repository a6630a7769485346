"""Fingers, pens and palms on the drawing page: real input of a real browser, and the masks that come of it."""

from collections.abc import Iterator

import numpy as np
import pytest
from chromium import needs_chromium, opened
from desk import NAMES, Desk, at, brushed, ready, rectangle, saved, set_size
from playwright.sync_api import Browser, CDPSession, Page, expect

pytestmark = needs_chromium

SIZE = 3

SLOW = 600
"""Milliseconds after which a second finger was not meant to come with the first."""


@pytest.fixture
def page(browser: Browser, desk: Desk) -> Iterator[Page]:
    with opened(browser, desk.address, has_touch=True) as page:
        ready(page, NAMES[0])
        set_size(page, SIZE)
        yield page


class Hand:
    """Fingers and a pen, which point at pixels of the image as it lies when the page is opened."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._devices: CDPSession = page.context.new_cdp_session(page)
        self._fingers: dict[int, tuple[float, float]] = {}

    def finger(self, kind: str, number: int, x: float = 0, y: float = 0) -> None:
        """Put a finger down ("Start"), move it ("Move") or lift it ("End")."""
        if kind == "End":
            del self._fingers[number]
        else:
            self._fingers[number] = at(self._page, x, y)
        points = [{"x": left, "y": top, "id": key} for key, (left, top) in self._fingers.items()]
        self._devices.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    def cancel(self) -> None:
        """The system takes the fingers for something else."""
        self._fingers.clear()
        self._devices.send("Input.dispatchTouchEvent", {"type": "touchCancel", "touchPoints": []})

    def swipe(self, number: int, *pixels: tuple[float, float]) -> None:
        self.finger("Start", number, *pixels[0])
        for pixel in pixels[1:]:
            self.finger("Move", number, *pixel)
        self.finger("End", number)

    def pen(self, kind: str, x: float, y: float, *, button: str = "left", force: float = 0.5) -> None:
        """Press the pen on the glass ("Pressed"), move it ("Moved") or lift it ("Released")."""
        left, top = at(self._page, x, y)
        buttons = 0 if kind == "Released" else {"left": 1, "right": 2}[button]
        event = {"type": f"mouse{kind}", "x": left, "y": top, "button": button, "buttons": buttons, "clickCount": 1}
        self._devices.send("Input.dispatchMouseEvent", {**event, "pointerType": "pen", "force": force})

    def write(self, *pixels: tuple[float, float], button: str = "left") -> None:
        self.pen("Pressed", *pixels[0], button=button)
        for pixel in pixels[1:]:
            self.pen("Moved", *pixel, button=button)
        self.pen("Released", *pixels[-1], button=button)


@pytest.fixture
def hand(page: Page) -> Hand:
    return Hand(page)


def test_a_finger_draws_and_two_zoom(page: Page, desk: Desk, hand: Hand) -> None:
    hand.finger("Start", 1, 60, 50)
    hand.finger("Move", 1, 62, 50)
    hand.finger("Start", 2, 80, 50)
    before = page.screenshot()
    hand.finger("Move", 2, 120, 50)
    hand.finger("Start", 3, 20, 20)  # a third one changes nothing
    hand.finger("Move", 3, 40, 20)
    for number in (3, 2, 1):
        hand.finger("End", number)
    expect(page.locator("#undo")).to_be_disabled()
    assert page.screenshot() != before
    page.keyboard.press("0")
    hand.swipe(4, (40, 50), (60, 50))
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), brushed(SIZE, (40, 50), (60, 50)))


def test_a_late_second_finger_keeps_the_stroke(page: Page, desk: Desk, hand: Hand) -> None:
    hand.finger("Start", 1, 40, 50)
    hand.finger("Move", 1, 60, 50)
    page.wait_for_timeout(SLOW)
    hand.finger("Start", 2, 80, 80)
    hand.finger("Move", 2, 90, 90)
    hand.finger("End", 2)
    hand.finger("End", 1)
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), brushed(SIZE, (40, 50), (60, 50)))


def test_two_fingers_zoom_with_every_tool(page: Page, desk: Desk, hand: Hand) -> None:
    page.keyboard.press("p")
    corners = [(10, 12), (50, 12), (50, 40), (10, 40)]
    for place, (x, y) in enumerate(corners):
        hand.swipe(place, (x - 0.5, y - 0.5))
        hand.finger("Start", 8, 60, 50)
        hand.finger("Start", 9, 80, 50)
        hand.finger("Move", 9, 81, 50)
        hand.finger("End", 9)
        hand.finger("End", 8)
        page.keyboard.press("0")
    hand.swipe(7, (9.5, 11.5))  # the first corner again
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), rectangle(10, 12, 50, 40))
    page.keyboard.press("f")
    page.keyboard.press("i")
    hand.finger("Start", 1, 30, 30)
    hand.finger("Start", 2, 40, 30)
    hand.finger("End", 2)
    hand.finger("End", 1)
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), ~rectangle(10, 12, 50, 40))  # nothing was filled
    hand.swipe(3, (30, 30))
    saved(page)
    assert desk.begun("a/1").all()


@pytest.mark.parametrize("palm_is_first", [False, True])
def test_a_palm_beside_the_pen_does_nothing(page: Page, desk: Desk, hand: Hand, *, palm_is_first: bool) -> None:
    if palm_is_first:
        hand.finger("Start", 1, 90, 80)
        hand.finger("Move", 1, 92, 82)
    hand.pen("Pressed", 20, 20)
    if not palm_is_first:
        hand.finger("Start", 1, 90, 80)
    hand.pen("Moved", 40, 30, force=0.1)  # however hard it is pressed
    hand.finger("Move", 1, 95, 85)
    hand.pen("Moved", 70, 30, force=1)
    hand.finger("End", 1)
    hand.pen("Released", 70, 30)
    saved(page)
    drawn = brushed(SIZE, (20, 20), (40, 30), (70, 30))
    np.testing.assert_array_equal(desk.begun("a/1"), drawn)

    hand.swipe(1, (50, 50), (60, 60))  # where there is a pen, a finger moves the image
    page.keyboard.press("0")
    hand.write((70, 30), (70, 60))
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), drawn | brushed(SIZE, (70, 30), (70, 60)))
    hand.write((70, 30), (70, 60), button="right")  # the button at its side
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), drawn & ~brushed(SIZE, (70, 30), (70, 60)))


def test_a_stroke_that_the_system_ends_is_taken_back(page: Page, desk: Desk, hand: Hand) -> None:
    hand.swipe(1, (40, 50), (60, 50))
    hand.finger("Start", 1, 20, 20)
    hand.finger("Move", 1, 60, 20)
    hand.cancel()
    page.keyboard.press("z")
    page.keyboard.press("y")
    saved(page)
    np.testing.assert_array_equal(desk.begun("a/1"), brushed(SIZE, (40, 50), (60, 50)))
