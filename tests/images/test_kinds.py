"""Kinds of image file, told from real files of each kind that Pillow writes, and from the beginnings of others."""

import io
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, picture
from PIL import Image, features

from alserve.images.header import FORMATS, HEAD, SUFFIXES
from alserve.images.kinds import RAW, SLIDE, kind_of, kind_of_file

WRITTEN = ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM"]
WRITTEN += [kind for kind, name in (("JPEG2000", "jpg_2000"), ("AVIF", "avif")) if features.check(name)]


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_pillow_writes(kind: str) -> None:
    head = encoded(picture(40, 60), kind)[:HEAD]
    assert kind_of(head) == kind
    assert kind_of_file(PurePath("photo"), head) == kind
    assert Image.open(io.BytesIO(encoded(picture(40, 60), kind))).format == kind


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", RAW),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (bytes(128) + b"DICM\x02\0\0\0", "DICOM"),
        (b"II*\0\x10\0\0\0CR\x02\0", RAW),
        (b"FUJIFILMCCD-RAW 0201", RAW),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (b"P5 # made by hand\n# twice\n 3 4\n255\n", "PPM"),
        (b"8BPS\0\x01", "PSD"),
    ],
)
def test_beginnings_of_what_pillow_does_not_write(head: bytes, kind: str) -> None:
    assert kind_of(head) == kind


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"hello",
        b"BMW drives",
        b"P5 is a port",
        b"%PDF-1.7",
        b"{}",
        b"RIFF\0\0\0\0WAVE",
        b"\0\0\0\x18ftypisom",
        bytes(512),
    ],
)
def test_no_images(head: bytes) -> None:
    assert kind_of(head) is None
    assert kind_of_file(PurePath("notes.txt"), head) is None


def test_containers_go_by_their_suffix_for_their_first_page_may_be_a_thumbnail() -> None:
    tiff, jpeg = encoded(picture(), "TIFF")[:HEAD], encoded(picture(), "JPEG")[:HEAD]
    assert {kind_of_file(PurePath(f"a{suffix}"), tiff) for suffix in (".NEF", ".dng", ".cr2", ".arw")} == {RAW}
    assert {kind_of_file(PurePath(f"a{suffix}"), tiff) for suffix in (".svs", ".ndpi", ".SCN")} == {SLIDE}
    assert kind_of_file(PurePath("a.mrxs"), jpeg) == SLIDE
    assert kind_of_file(PurePath("a.heic"), b"") == "HEIC"  # damaged, and still named
    assert kind_of_file(PurePath("a.heic"), jpeg) == "JPEG"  # renamed


@given(st.binary(max_size=HEAD), st.sampled_from([*sorted(SUFFIXES), "", ".txt", ".img"]))
def test_any_bytes_have_at_most_one_known_kind(head: bytes, suffix: str) -> None:
    assert kind_of_file(PurePath(f"a{suffix}"), head) == kind_of(head)


def test_every_kind_that_is_read_is_told() -> None:
    assert {kind_of(encoded(picture(), kind)[:HEAD]) for kind in FORMATS} == set(FORMATS)
