"""The server of the drawing page: whom it answers, and what it refuses."""

import zlib
from contextlib import suppress

import httpx
import numpy as np
from desk import HEIGHT, NAMES, WIDTH, Desk, api, rectangle
from pictures import picture
from web import claiming_png, decoded

from alserve.service.page import HEADERS
from training.annotate.browser.site import OWN

OTHERS = (
    ("Host", "rebound.example"),
    ("Host", "127.0.0.1.example"),
    ("Origin", "http://evil.example"),
    ("Origin", "null"),
)


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
        token = desk.address.partition("#")[2]
        assert stranger.get(f"/report?token={token}").status_code == 404  # a frame sends no header
        assert [friend.get(path).status_code for path in paths if path != "/report"] == [200, 200, 200, 404]
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
        with suppress(httpx.TransportError):  # it is refused while it is sent, which may cut the line
            assert put(b"x" * 1_000_000)[0] == 413
        for image in ("../masks", "..%2f..%2fetc", "a%2F1", "0" * 16, "%00"):
            assert client.put(f"/images/{image}/mask", content=good).status_code in {404, 405}, image
        assert client.post(f"/images/{key}/nonsense").status_code == 404
        assert not list(desk.folder.rglob("begun/**/*.png"))
        assert put(good)[0] == 200
        np.testing.assert_array_equal(desk.begun("a/1"), rectangle(5, 5, 50, 50))
        assert put(zlib.compress(bytes(len(bits))))[0] == 412  # of a version that is no more


def test_what_cannot_be_saved_says_why(desk: Desk) -> None:
    (key, *_) = desk.session.drawings
    (desk.folder / "begun").write_text("a file in the folder's place")
    bits = np.packbits(rectangle(5, 5, 50, 50), axis=1).tobytes()
    with api(desk) as client:
        answer = client.put(f"/images/{key}/mask", content=zlib.compress(bits), headers={"If-Match": "*"})
        assert answer.status_code == 507
        assert str(desk.folder / "begun") in answer.json()["error"]


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
