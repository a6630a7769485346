"""The commands behind the drawing page: a whole run while a person draws, killed in between; and `alserve annotate`."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from chromium import PATIENCE, launched, needs_chromium
from command import Cli, assert_refused
from pictures import encoded, picture
from playwright.sync_api import Page, expect
from server import clean_environment
from tables import draw_without_masks

from alserve.files import write_atomic
from alserve.images.codec import decode_mask
from alserve.measure.dataset import load_dataset
from training.annotate.oracle import FolderOracle
from training.run.records import read_rounds

TINY = (
    *("--method", "label-propagation", "--encoder", "resnet18", "--set", "pretrained=false", "--short-side", 64),
    *("--set", "batch=4", "--classifier-steps", 3, "--set", "classifier_cycles=1", "--steps", 2, "--passes", 1),
    *("--initial", 2, "--per-round", 1, "--rounds", 2),
)
"""The smallest settings that go through everything."""

TRAINING = 300_000
"""Milliseconds that a round may take."""

WITHOUT_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": ""}


@contextmanager
def started(*words: object, cwd: Path, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start a command, wait for the address that it prints; kill it in the end if it still runs."""
    command = [sys.executable, "-m", "alserve", *map(str, words)]
    env = clean_environment(cwd, **{**WITHOUT_DISPLAY, **environment})
    with subprocess.Popen(command, cwd=cwd, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        try:
            while not (found := re.search(r"http://127\.0\.0\.1:\d+/#[\w-]{43}", said)):
                line = process.stderr.readline()
                assert line, said
                said += line
            yield process, found[0]
        finally:
            process.kill()


def finish(page: Page) -> None:
    page.get_by_role("button", name="Learn from these masks").click()


def centre(page: Page) -> tuple[float, float]:
    box = page.locator("#overlay").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def stroke(page: Page) -> None:
    """Draw a stroke in an image that nothing was drawn in yet."""
    expect(page.locator("[aria-selected=true]")).to_contain_text("to draw")
    expect(page.locator("#note")).not_to_have_text("Loading …")
    x, y = centre(page)
    page.mouse.move(x - 40, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 20)
    page.mouse.up()


def done(page: Page, count: int, of: int) -> None:
    """Say that the image is done."""
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text(f"{count} of {of} done")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return draw_without_masks(tmp_path / "data")


@pytest.fixture
def page() -> Iterator[Page]:
    with launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        yield page


@needs_chromium
def test_a_run_goes_on_while_a_person_draws_and_after_a_kill(page: Page, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("train", table, "--out", run, "--oracle", "browser", *TINY)
    with started(*command, cwd=tmp_path) as (process, address):
        page.goto(address)
        expect(page.get_by_role("option")).to_have_count(4)
        expect(page.locator("#note")).to_contain_text("Paint all")
        skipped = page.locator("#name").inner_text()
        page.keyboard.press("s")
        expect(page.locator("#count")).to_have_text("1 of 4 done")
        expect(page.locator("#name")).not_to_have_text(skipped)
        expect(page.locator("#note")).to_contain_text("Paint all")
        process.send_signal(signal.SIGKILL)
        process.wait()
    stroke(page)
    expect(page.locator("#lost")).to_contain_text("Start the same command again")
    expect(page.locator("#saving")).to_contain_text("Not saved")

    with started(*command, cwd=tmp_path) as (process, again):
        assert again == address  # so the page goes on, and saves what it has
        expect(page.locator("#saving")).to_have_text("Saved")
        expect(page.get_by_title(skipped)).to_have_count(0)
        names = [option.get_attribute("title") for option in page.get_by_role("option").all()]
        assert len(names) == 4  # another is asked for in its place
        done(page, 1, 4)
        for count in range(2, 5):
            stroke(page)
            done(page, count, 4)
        assert not (run / "rounds.jsonl").read_text()
        finish(page)
        expect(page.locator("#learning")).to_be_visible()
        expect(page.get_by_role("option")).to_have_count(2, timeout=TRAINING)
        expect(page.locator("#note")).to_contain_text("model")  # its draft, and loaded
        page.keyboard.press("s")
        expect(page.locator("#count")).to_have_text("1 of 2 done")
        stroke(page)
        done(page, 2, 2)
        finish(page)
        expect(page.get_by_role("option")).to_have_count(1)  # in place of the skipped one
        stroke(page)
        done(page, 1, 1)
        finish(page)
        expect(page.locator("#ended-title")).to_have_text("The run is finished", timeout=TRAINING)
        expect(page.frame_locator("#report").locator("h1")).to_have_text("run")
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "is the model" in process.stderr.read()
    one, two = read_rounds(run)
    assert set(one["asked"]) == set(names)
    assert (one["masks_used"], two["masks_used"]) == (4, 6)
    assert not list((run / "annotate" / "begun").rglob("*.png"))


@needs_chromium
def test_annotate_goes_on_after_ctrl_c_and_names_what_comes_next(page: Page, tmp_path: Path) -> None:
    drawing = tmp_path / "drawing"
    write_atomic(tmp_path / "data" / "a" / "1.jpg", encoded(picture(40, 60), "JPEG"))
    FolderOracle(drawing).request(load_dataset(tmp_path / "data").samples, None)
    with started("annotate", drawing, cwd=tmp_path) as (process, address):
        page.goto(address)
        stroke(page)
        expect(page.locator("#saving")).to_have_text("Saved")
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 130
    expect(page.locator("#lost")).to_contain_text("Start the same command again")
    with started("annotate", drawing, cwd=tmp_path) as (process, _):
        expect(page.locator("#lost")).to_be_hidden()
        expect(page.locator("[aria-selected=true]")).to_contain_text("begun")
        done(page, 1, 1)
        page.get_by_role("button", name="Finish").click()
        assert process.stderr is not None
        assert process.wait(90) == 0
        assert "go on with the same 'alserve train' command" in process.stderr.read()
    assert decode_mask((drawing / "masks" / "a" / "1.png").read_bytes()).any()


def test_the_address_is_for_its_owner_and_stays_the_same(tmp_path: Path) -> None:
    write_atomic(tmp_path / "images" / "1.png", encoded(np.zeros((4, 4), np.uint8)))
    addresses = set()
    for _ in range(2):
        with started("annotate", tmp_path, cwd=tmp_path) as (_, address):
            addresses.add(address)
            link = tmp_path / "page.html"
            assert address in link.read_text()
            assert os.name == "nt" or link.stat().st_mode & 0o077 == 0
    assert len(addresses) == 1
    if os.name != "nt":
        link.chmod(0o644)  # others may have read it
        with started("annotate", tmp_path, cwd=tmp_path) as (_, address):
            assert address.partition("#")[2] not in addresses.pop()
            assert link.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.name == "nt", reason="the browser of this test is a shell script")
def test_the_page_is_opened_by_a_file_and_not_by_its_secret_address(tmp_path: Path) -> None:
    write_atomic(tmp_path / "images" / "1.png", encoded(np.zeros((4, 4), np.uint8)))
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{seen}"\n')
    browser.chmod(0o700)
    with started("annotate", tmp_path, "--open", cwd=tmp_path, BROWSER=f"{browser} %s"):
        end = time.monotonic() + 30
        while not (seen.is_file() and seen.read_text()) and time.monotonic() < end:
            time.sleep(0.1)
    assert seen.read_text().strip() == (tmp_path / "page.html").as_uri()


def test_annotate_refuses(cli: Cli, tmp_path: Path) -> None:
    assert_refused(cli("annotate", tmp_path, "--no-open"), "nothing is to be drawn here", "--oracle folder:")
    write_atomic(tmp_path / "images" / "1.png", encoded(np.zeros((4, 4), np.uint8)))
    with started("annotate", tmp_path, cwd=tmp_path) as (_, address):
        port = address.split(":")[2].partition("/")[0]
        assert_refused(cli("annotate", tmp_path, "--no-open"), "another process")
        write_atomic(tmp_path / "other" / "images" / "1.png", encoded(np.zeros((4, 4), np.uint8)))
        result = cli("annotate", tmp_path / "other", "--no-open", "--port", port)
        assert_refused(result, f"port {port}", "choose another --port")


def test_a_run_in_its_data_set_is_refused(cli: Cli, tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        write_atomic(tmp_path / "data" / name, encoded(picture(40, 60), "JPEG"))
    words = ("train", tmp_path / "data", "--oracle", "browser", "--initial", 1, "--rounds", 1)
    assert_refused(cli(*words, "--out", tmp_path / "data" / "run"), "lies in the data set")
    assert not (tmp_path / "data" / "run").exists()
