"""Measure the page of `alserve annotate` with large images, in Chromium; write benchmarks/results/draw_large.md.

    python benchmarks/draw_large.py

For each size a picture is opened, brushed over from corner to corner at once, zoomed, moved, brushed again, inverted,
undone and filled, with a real mouse. A frame is the time between two pictures that the browser shows; the longest is
what a person feels. A task is what the page's own thread does at a stretch: while it lasts, nothing else is heeded.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import psutil
from common import RESULTS, machine, options, table, write_report
from playwright.sync_api import Page, expect, sync_playwright

from alserve.files import write_atomic
from alserve.images.codec import decode_mask, encode_jpeg
from training.annotate.browser.drawing import Drawing
from training.annotate.browser.server import serving
from training.annotate.browser.session import Session

SIDES = (4000, 8000)
PATIENCE = 120_000
"""Milliseconds."""

TASKS = """() => {
  window.tasks_ = [];
  const note = (list) => tasks_.push(...list.getEntries().map((task) => task.duration));
  new PerformanceObserver(note).observe({ type: "longtask" });
}"""
"""Notes the tasks of 50 ms and more."""

WATCH = """() => {
  window.frames_ = []; let last = performance.now(); window.watching = true;
  const look = (now) => { frames_.push(now - last); last = now; if (watching) requestAnimationFrame(look); };
  requestAnimationFrame(look);
}"""


SHOWN = (
    "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))))"
)
"""Waits until what was done is shown."""


def main() -> None:
    """Open each size, write the table."""
    parser = options(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    arguments = parser.parse_args()
    busy = os.getloadavg()[0]
    rows = [measure(side, arguments.browser) for side in arguments.sides]
    how = (
        f"`python benchmarks/draw_large.py`, Chromium without a window or a GPU, 1,280 x 720, and the server, both on "
        f"{machine()}. In each cell of frames: median, and the longest, in ms. The load average "
        f"was {busy:.1f} when it began."
    )
    titles: tuple[str, ...] = (
        "pixels",
        "until it is shown, s",
        "brush, whole image",
        "zoom and move",
        "brush, near",
        "invert",
        "undo",
        "fill",
    )
    titles += ("longest task, ms", "until it is saved, s", "memory of the page, MB")
    write_report(RESULTS / "draw_large.md", "Drawing on large images", how, table(titles, rows))


def measure(side: int, browser: str) -> tuple[str, ...]:
    """Draw on one image, and return its line of the table."""
    with TemporaryDirectory() as place, sync_playwright() as playwright:
        folder = Path(place)
        coarse = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        write_atomic(folder / "images" / "a.jpg", encode_jpeg(np.asarray(cv2.resize(coarse, (side, side)), np.uint8)))
        session = Session(learns=False)
        session.ask([Drawing(folder, "a.jpg")])
        with serving(folder, session, opens=False) as address:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = chromium.new_page()
            expect.set_options(timeout=PATIENCE)
            start = time.perf_counter()
            page.goto(address)
            expect(page.locator("#name")).to_have_text("a.jpg")
            expect(page.locator("#note")).not_to_have_text("Loading …")
            shown = time.perf_counter() - start
            page.evaluate(TASKS)
            if (box := page.locator("#overlay").bounding_box()) is None:
                raise SystemExit("the page shows nothing to draw on")
            x, y, width, height = box["x"], box["y"], box["width"], box["height"]
            with frames(page) as whole:
                drag(page, (x + width * 0.3, y + height * 0.1), (x + width * 0.7, y + height * 0.9))
            start = time.perf_counter()
            expect(page.locator("#saving")).to_have_text("Saved")
            saved = time.perf_counter() - start
            with frames(page) as moved:
                page.mouse.move(x + width / 2, y + height / 2)
                for _ in range(12):
                    page.mouse.wheel(0, -120)
                page.keyboard.down(" ")
                drag(page, (x + width * 0.6, y + height * 0.6), (x + width * 0.3, y + height * 0.3))
                page.keyboard.up(" ")
            with frames(page) as near:
                drag(page, (x + width * 0.2, y + height * 0.5), (x + width * 0.8, y + height * 0.6))
            page.keyboard.press("0")
            with frames(page) as inverted:
                page.keyboard.press("i")
            with frames(page) as undone:
                page.keyboard.press("Control+z")
            page.keyboard.press("i")
            page.keyboard.press("f")
            with frames(page) as filled:
                page.mouse.click(x + width * 0.75, y + height * 0.3, button="right")
            longest = max(page.evaluate("tasks_"), default=0)
            expect(page.locator("#saving")).to_have_text("Saved")
            memory = max(process.memory_info().rss for process in psutil.Process().children(recursive=True))
            chromium.close()
        if decode_mask((folder / "begun" / "a.png").read_bytes()).shape != (side, side):
            raise SystemExit("the mask is not of the image's size")
    print(side, shown, file=sys.stderr)
    times = [describe(each) for each in (whole, moved, near, inverted, undone, filled)]
    return (f"{side:,} x {side:,}", f"{shown:.1f}", *times, f"{longest:.0f}", f"{saved:.1f}", f"{memory / 1e6:.0f}")


@contextmanager
def frames(page: Page) -> Iterator[list[float]]:
    """Note the milliseconds of each frame while something is done."""
    found: list[float] = []
    page.evaluate(WATCH)
    yield found
    page.evaluate(SHOWN)
    found += page.evaluate("() => { watching = false; return frames_; }")


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Move the mouse with its button down, in 40 steps."""
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=40)
    page.mouse.up()


def describe(found: list[float]) -> str:
    """Return the median and the longest of some frames."""
    return f"{np.median(found):.0f}, {max(found):.0f}"


if __name__ == "__main__":
    main()
