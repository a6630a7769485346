"""The page as a person meets it: a real browser in front of a real server, compared with the Predictor in here."""

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from chromium import needs_chromium, opened
from PIL import Image
from playwright.sync_api import Browser, Download, Locator, Page, expect
from server import serving
from web import SERVE

from alserve.images.codec import decode, decode_mask
from alserve.predictor import Predictor
from alserve.service.page import HEADERS, STATIC
from alserve.service.settings import MAX_BODY_BYTES

pytestmark = needs_chromium

EXAMPLES = sorted((STATIC / "examples").iterdir())
FINISHED = "[data-state=done], [data-state=failed]"


@pytest.fixture
def page(browser: Browser, client: httpx.Client) -> Iterator[Page]:
    """The page with its example."""
    with opened(browser, str(client.base_url)) as page:
        expect(page.locator("#example")).to_be_visible()
        yield page


def give(page: Page, *files: Path) -> Locator:
    """Choose files, wait for all answers; return the strip's pictures."""
    options = page.get_by_role("option")
    before = options.count()
    page.set_input_files("#files", files)
    expect(page.locator(FINISHED)).to_have_count(before + len(files))
    expect(page.locator("#example")).to_be_hidden()
    return options


def pixels(page: Page, canvas: str = "#picture") -> npt.NDArray[np.uint8]:
    """The large picture, or the map, as it is drawn, once two looks at it agree: uint8 [height, width, 3]."""
    seen = ""
    for _ in range(50):
        page.wait_for_timeout(100)
        last, seen = seen, page.locator(canvas).evaluate("(canvas) => canvas.toDataURL()")
        if seen == last:
            break
    return decode(base64.b64decode(seen.partition(",")[2]))


def set_slider(page: Page, name: str, value: float) -> None:
    page.locator(name).fill(str(value))


def saved(page: Page, button: str) -> Download:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button).click()
    return waiting.value


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(EXAMPLES[0].read_bytes()[:40])
    return path


def test_the_page_opens_with_an_example_answered_which_the_users_pictures_replace(
    page: Page, predictor: Predictor
) -> None:
    expected = predictor.predict(EXAMPLES[0])
    expect(page.locator("#name")).to_have_text(EXAMPLES[0].name)
    expect(page.locator("#label")).to_have_text(expected.label)
    expect(page.locator("#scores tr")).to_have_count(len(expected.scores))
    drawn, heat = pixels(page), pixels(page, "#map").astype(np.float64).sum(axis=-1)
    mask = cv2.resize(expected.mask().astype(np.uint8), drawn.shape[1::-1])
    edge = cv2.dilate(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3))), np.ones((9, 9))) > 0
    assert is_yellow(drawn)[edge].sum() > 0.9 * is_yellow(drawn).sum() > 0
    cam = cv2.resize(expected.cam(), heat.shape[::-1])
    assert np.corrcoef(heat.ravel(), cam.ravel())[0, 1] > 0.5
    expect(page.locator("#remove")).to_be_hidden()
    expect(page.get_by_role("option")).to_have_count(0)

    give(page, EXAMPLES[1])
    expect(page.locator("#name")).to_have_text(EXAMPLES[1].name)
    expect(page.locator("#remove")).to_be_visible()
    expect(page.get_by_role("option")).to_have_count(1)
    page.locator("#remove").click()
    expect(page.locator("#detail")).to_be_hidden()  # the example does not come back


def test_a_service_that_is_not_ready_says_so_and_shows_no_example(browser: Browser, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bentoml", "serve", "alserve.service.app:service"]
    with serving(command, tmp_path, health="/livez", ALSERVE_MODEL=str(tmp_path / "missing.onnx")) as client:
        page = browser.new_page()
        page.goto(str(client.base_url))
        for _ in range(3):
            assert not any(page.locator(part).is_visible() for part in ("#detail", "#failure", "#status", "#ask"))
            page.wait_for_timeout(500)
        expect(page.locator("#model")).to_have_text("the service has no model that works; its log says why")
        assert not any(page.locator(part).is_visible() for part in ("#detail", "#failure", "#status", "#ask"))
        page.close()


def test_pictures_are_answered_in_order_and_a_broken_one_says_why(
    page: Page, client: httpx.Client, predictor: Predictor, broken: Path
) -> None:
    options = give(page, EXAMPLES[0], broken, EXAMPLES[1])

    assert [text.split("\n")[0] for text in options.all_inner_texts()] == [
        EXAMPLES[0].name,
        broken.name,
        EXAMPLES[1].name,
    ]
    for index, path in ((0, EXAMPLES[0]), (2, EXAMPLES[1])):
        expected = predictor.predict(path)
        options.nth(index).click()
        expect(page.locator("#name")).to_have_text(path.name)
        expect(page.locator("#label")).to_have_text(expected.label)
        shown = page.locator("#foreground").inner_text().replace("%", "")
        assert float(shown) == pytest.approx(100 * expected.mask().mean(), abs=0.15)  # it is counted on 8-bit values
        best = page.locator("#scores tr").first
        expect(best).to_contain_text(expected.label)
        expect(best).to_contain_text(f"{expected.scores[expected.label]:.1%}".replace("%", " %"))
    options.nth(1).click()
    reason = client.post("/predict", content=broken.read_bytes()).json()["error"]
    expect(page.locator("#message")).to_have_text(reason)
    expect(page.locator("#result")).to_be_hidden()


def test_the_threshold_acts_at_once_and_without_the_server(page: Page) -> None:
    give(page, EXAMPLES[0])
    expect(page.locator("#result")).to_be_visible()
    own, share = pixels(page), page.locator("#foreground").inner_text()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    set_slider(page, "#threshold", 0.95)
    expect(page.locator("#foreground")).not_to_have_text(share)
    higher = pixels(page)
    page.locator("#outline").uncheck()
    bare = pixels(page)
    page.locator("#heat").check()
    heated = pixels(page)
    page.locator("#heat").uncheck()
    page.locator("#outline").check()
    page.locator("#reset").click()

    assert not any(np.array_equal(one, other) for one, other in ((own, higher), (higher, bare), (bare, heated)))
    expect(page.locator("#foreground")).to_have_text(share)
    np.testing.assert_array_equal(pixels(page), own)
    assert not [url for url in asked if url.startswith("http")]


def test_outline_and_fill_are_where_the_mask_is(page: Page, predictor: Predictor) -> None:
    give(page, EXAMPLES[0])
    set_slider(page, "#fill", 0)
    outlined = is_yellow(pixels(page))
    set_slider(page, "#fill", 1)
    filled = is_yellow(pixels(page))
    mask = cv2.resize(predictor.predict(EXAMPLES[0]).mask().astype(np.uint8), outlined.shape[::-1])
    edge, band = (cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((size, size))) > 0 for size in (3, 13))

    assert not (outlined & ~band).any()
    assert cv2.dilate(outlined.astype(np.uint8), np.ones((7, 7)))[edge].mean() > 0.99
    assert not ((filled != mask) & ~band).any()


def is_yellow(drawn: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    distance = np.abs(drawn.astype(np.int16) - np.array([240, 228, 66])).max(axis=-1)
    return np.asarray(distance < 40, np.bool_)


@pytest.mark.parametrize("threshold", [None, 0.25])
def test_the_saved_mask_is_the_servers(
    page: Page, client: httpx.Client, predictor: Predictor, threshold: float | None
) -> None:
    give(page, EXAMPLES[1])
    expect(page.locator("#result")).to_be_visible()
    if threshold:
        set_slider(page, "#threshold", threshold)
    download = saved(page, "Save mask")
    facts = json.loads(Path(saved(page, "Save JSON").path()).read_text())
    query = {"threshold": threshold} if threshold else {}
    expected = decode_mask(client.post("/segment", params=query, content=EXAMPLES[1].read_bytes()).content)
    mask = decode_mask(Path(download.path()).read_bytes())

    assert download.suggested_filename == f"{EXAMPLES[1].stem}_mask.png"
    assert mask.shape == expected.shape
    assert (mask != expected).mean() < 0.005
    assert facts["file"] == EXAMPLES[1].name
    assert facts["threshold"] == pytest.approx(threshold or predictor.spec.threshold)
    assert facts["foreground"] == pytest.approx(mask.mean())
    assert facts["model"] == {"threshold": predictor.spec.threshold, "sha256": predictor.engine.sha256}


def test_a_turned_photograph_and_a_tiff_are_shown_in_the_frame_of_their_maps(page: Page, tmp_path: Path) -> None:
    upright = Image.open(EXAMPLES[0])
    turn = Image.Exif()
    turn[0x0112] = 6  # a viewer turns it by 90 degrees, clockwise
    turned, tiff = tmp_path / "turned.jpg", tmp_path / "scan.tif"
    upright.save(turned, exif=turn, quality=95)
    upright.save(tiff)
    options = give(page, turned, tiff)

    page.locator("#outline").uncheck()
    for index, expected in ((0, upright.rotate(-90, expand=True)), (1, upright)):
        options.nth(index).click()
        expect(page.locator("#name")).to_have_text((turned.name, tiff.name)[index])
        seen = pixels(page)
        like = np.asarray(expected.resize(seen.shape[1::-1], Image.Resampling.BICUBIC), np.int16)
        assert np.abs(seen - like).mean() < 6
    expect(page.locator("#note")).to_contain_text("server's copy")


def test_files_can_be_dropped_and_examples_picked(page: Page) -> None:
    page.locator("[data-example]").first.click()
    expect(page.get_by_role("option")).to_have_count(1)
    dropped = page.evaluate_handle(
        """async () => {
            const parts = await fetch("page/examples/tissue-2.jpg").then((answer) => answer.blob());
            const transfer = new DataTransfer();
            transfer.items.add(new File([parts], "dropped.jpg"));
            transfer.items.add(new File([], "empty.png"));
            return transfer;
        }"""
    )
    page.dispatch_event("footer", "drop", {"dataTransfer": dropped})

    expect(page.locator("[data-state=done]")).to_have_count(2)
    expect(page.locator("[data-state=failed]")).to_have_text("empty.pngfailed")
    expect(page.locator("#name")).to_have_text("dropped.jpg")


def test_a_file_that_is_too_large_is_not_sent(page: Page, tmp_path: Path) -> None:
    fits, large = tmp_path / "fits.bin", tmp_path / "large.bin"
    fits.write_bytes(bytes(MAX_BODY_BYTES))
    large.write_bytes(bytes(MAX_BODY_BYTES + 1))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/predict" in request.url else None)
    options = give(page, fits, large)

    options.nth(1).click()
    expect(page.locator("#message")).to_contain_text("the server takes 32 MiB")
    options.nth(0).click()
    expect(page.locator("#message")).to_contain_text("image")
    assert len(sent) == 1


def test_the_keyboard_reaches_everything(page: Page) -> None:
    give(page, *EXAMPLES)
    reached = []
    for _ in range(26):
        page.keyboard.press("Tab")
        focus = page.evaluate("[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]")
        reached.append(focus[0] or page.evaluate("document.activeElement.role ?? document.activeElement.tagName"))
    wanted = {"option", "remove", "outline", "threshold", "fill", "heat", "opacity", "save-mask", "save-json", "files"}
    wanted |= {"TR", "BUTTON"}
    assert wanted <= set(reached)

    name, chosen = page.locator("#name"), page.locator("[aria-selected=true]")
    chosen.focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for key, expected in (("ArrowRight", 1), ("End", 2), ("ArrowRight", 2), ("ArrowLeft", 1), ("Home", 0)):
        page.keyboard.press(key)
        expect(name).to_have_text(EXAMPLES[expected].name)
        expect(chosen).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.get_by_role("option")).to_have_count(2)
    expect(name).to_have_text(EXAMPLES[1].name)
    expect(chosen).to_be_focused()
    expect(page.get_by_role("status")).to_contain_text("removed")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_small_screen_needs_no_sideways_scrolling(browser: Browser, client: httpx.Client, scheme: str) -> None:
    with opened(browser, str(client.base_url), viewport={"width": 360, "height": 740}, color_scheme=scheme) as page:
        expect(page.locator("#example")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        give(page, *EXAMPLES)
        expect(page.locator("#result")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        ground, ink = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        brightness = [sum(map(int, colour[4:-1].split(","))) for colour in (ground, ink)]
        assert (brightness[0] > brightness[1]) == (scheme == "light")


def test_the_token_is_asked_for_once(browser: Browser, tmp_path: Path) -> None:
    with (
        serving(SERVE, tmp_path, ALSERVE_TOKEN="öffne dich") as client,  # noqa: S106
        opened(browser, str(client.base_url)) as page,
    ):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.locator("#token").fill("wrong")
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("#ask")).to_be_visible()
        assert not [url for url in asked if "predict" in url]
        page.locator("#token").fill("öffne dich")
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("#model")).to_contain_text("Classes")
        expect(page.locator("#example")).to_be_visible()
        options = give(page, *EXAMPLES[:2])
        expect(page.locator("[data-state=done]")).to_have_count(options.count())


def test_a_server_that_is_gone_is_named_and_the_picture_can_be_sent_again(
    browser: Browser, client: httpx.Client
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(str(client.base_url))
    expect(page.locator("#model")).to_contain_text("Classes")
    context.set_offline(offline=True)
    give(page, EXAMPLES[0])
    expect(page.locator("#message")).to_contain_text("does not answer")
    context.set_offline(offline=False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("[data-state=done]")).to_have_count(1)
    context.close()


def test_every_file_of_the_page_comes_with_the_headers_and_names_no_other_host(client: httpx.Client) -> None:
    names = ["/", *(f"/page/{path.relative_to(STATIC)}" for path in STATIC.rglob("*") if path.is_file())]
    for name in names:
        answer = client.get(name).raise_for_status()
        assert {key: answer.headers.get(key) for key in HEADERS} == HEADERS
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert b"https://" not in answer.content
        assert b"style=" not in answer.content
    assert client.get("/page/../service.py").status_code == client.get("/page/nothing.js").status_code == 404
    assert sum(path.stat().st_size for path in EXAMPLES) < 160_000
