"""CVAT's XML: nothing is lost on the way, and one line for what cannot be read."""

import time
import tracemalloc
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from annotations import MASKS, Mask, assert_import_refused, blob, drawn_shapes, read_one
from command import Cli, assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, picture

from alserve.errors import DataError
from alserve.files import write_atomic
from training.annotate.formats import FORMATS, Draft, read_annotations


def annotations(*shapes: str, name: str = "1.png", size: tuple[int, int] = (4, 5), before: str = "") -> str:
    image = f'<image id="0" name="{name}" width="{size[1]}" height="{size[0]}">{"".join(shapes)}</image>'
    return f"{before}<annotations><version>1.1</version>{image}</annotations>"


def shape(tag: str, **attributes: Any) -> str:
    values = {"label": "cell", "occluded": "0", "z_order": "0", **attributes}
    text = " ".join(f'{name}="{value}"' for name, value in values.items())
    return f"<{tag} {text}></{tag}>"


def write(folder: Path, text: str) -> Path:
    path = folder / "annotations.xml"
    write_atomic(path, text.encode())
    return path


def export(drafts: list[Draft]) -> bytes:
    encode = FORMATS["cvat"].write
    assert encode is not None
    return encode(drafts, "")


@settings(deadline=None)  # the first reading imports all formats
@given(st.lists(MASKS | drawn_shapes(), min_size=1, max_size=4))
def test_what_goes_out_to_cvat_comes_in_again(tmp_path_factory: pytest.TempPathFactory, masks: list[Mask]) -> None:
    drafts = [Draft(f"ä&'<\">/{i}.png", (m.shape[0], m.shape[1]), m) for i, m in enumerate(masks)]
    path = tmp_path_factory.getbasetemp() / "annotations.xml"
    write_atomic(path, export([*drafts, Draft("none.png", (4, 5), None)]))
    found = list(read_annotations(path))
    full = [draft for draft in drafts if draft.mask is not None and draft.mask.any()]
    assert [annotation.name for annotation in found] == [draft.name for draft in full]
    for annotation, draft in zip(found, full, strict=True):
        np.testing.assert_array_equal(annotation.mask, draft.mask)


def test_masks_are_written_as_cvat_describes_them() -> None:
    mask = np.zeros((4, 6), np.bool_)
    mask[1:3, 2:5] = [[1, 1, 0], [0, 1, 1]]
    root = ET.fromstring(export([Draft("a.png", (4, 6), mask)]))  # noqa: S314  our own
    (image,), (found,) = root.iter("image"), root.iter("mask")
    assert (image.attrib["name"], image.attrib["width"], image.attrib["height"]) == ("a.png", "6", "4")
    assert [found.attrib[key] for key in ("left", "top", "width", "height")] == ["2", "1", "3", "2"]
    assert found.attrib["rle"] == "0, 2, 2, 2"
    assert found.attrib["label"] == root.findtext("meta/task/labels/label/name") == "foreground"


def test_names_that_xml_cannot_hold_are_not_written() -> None:
    for name in ("a\x01.png", "a\udcff.png", "a\nb.png"):
        with pytest.raises(DataError, match="XML cannot hold this name"):
            export([Draft(name, (4, 5), None)])


def test_shapes_are_painted_in_their_order_and_background_cuts_holes(tmp_path: Path) -> None:
    cell = shape("polygon", points="1.00,1.00;9.00,1.00;9.00,9.00;1.00,9.00", z_order=1)
    hole = shape("box", xtl="3", ytl="3", xbr="7", ybr="7", z_order=2, label="background")
    nucleus = shape("mask", rle="0, 4", left="4", top="4", width="2", height="2", z_order=2)
    under = shape("box", xtl="0", ytl="0", xbr="12", ybr="12", label="Background")
    mask = read_one(write(tmp_path, annotations('<tag label="good"/>', nucleus, hole, cell, under, size=(12, 12))))
    expected = np.zeros((12, 12), np.bool_)
    expected[1:9, 1:9] = True
    expected[3:7, 3:7] = False  # the hole comes after the nucleus in the file
    np.testing.assert_array_equal(mask, expected)
    mask = read_one(write(tmp_path, annotations(hole, nucleus, cell, size=(12, 12))))
    expected[4:6, 4:6] = True
    np.testing.assert_array_equal(mask, expected)


def test_turned_boxes_and_ellipses(tmp_path: Path) -> None:
    box = shape("box", xtl="5", ytl="8", xbr="15", ybr="12", rotation="90")
    mask = read_one(write(tmp_path, annotations(box, size=(20, 20))))
    expected = np.zeros((20, 20), np.bool_)
    expected[5:15, 8:12] = True
    np.testing.assert_array_equal(mask, expected)
    mask = read_one(
        write(tmp_path, annotations(shape("box", xtl=0, ytl=9, xbr=20, ybr=11, rotation=30), size=(20, 20)))
    )
    assert mask[14, 18]  # clockwise, as the image is seen
    assert not mask[5, 18]
    ellipse = shape("ellipse", cx="20", cy="15", rx="14", ry="7", rotation="0")
    mask = read_one(write(tmp_path, annotations(ellipse, size=(30, 40))))
    rows, columns = np.indices((30, 40)) + 0.5
    exact = ((columns - 20) / 14) ** 2 + ((rows - 15) / 7) ** 2 <= 1
    assert (mask != exact).sum() <= 2


def test_several_images_byte_order_mark_and_what_has_no_shape(tmp_path: Path) -> None:
    square = shape("polygon", points="0,0;2,0;2,2;0,2")
    text = annotations(square).replace("</annotations>", annotations(name="2.png")[len("<annotations>") :])
    text = text.replace("</annotations>", annotations(square, name="a\\3.png")[len("<annotations>") :])
    path = tmp_path / "annotations.xml"
    write_atomic(path, b"\xef\xbb\xbf" + text.encode())
    assert [annotation.name for annotation in read_annotations(path)] == ["1.png", "a/3.png"]


ENTITIES = "".join(f'<!ENTITY a{n + 1} "' + 10 * f"&a{n};" + '">' for n in range(12))
LAUGHS = f'<!DOCTYPE a [<!ENTITY a0 "ha">{ENTITIES}]>'
FETCHES = '<!DOCTYPE annotations SYSTEM "http://127.0.0.1:9/cvat.dtd">'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (annotations(name="&a12;", before=LAUGHS), ["defines XML entities"]),
        (annotations(before=FETCHES), ["defines XML entities"]),
        (annotations('<polygon label="&nbsp;"/>'), ["is no XML file, or ends too early", "undefined entity"]),
        (annotations()[:-4], ["is no XML file, or ends too early", "line 1"]),
        ("<?xml version='1.0' encoding='x-klingon'?><annotations/>", ["is no XML file"]),
        ("<svg><image/></svg>", ["XML that begins with <svg>, and not 'CVAT for images 1.1'"]),
        ("<annotations>" + "<a>" * 100_000, ["nests more than 32 elements"]),
        ("<annotations><track/></annotations>", ["'CVAT for video'", "export it as 'CVAT for images 1.1'"]),
        ("<annotations/>", ["holds no mask"]),
        ("<annotations><image name='a.png' width='3'/></annotations>", ["<image> height: Field required"]),
        (annotations(size=(4, 10**9)), ["is said to have 1000000000 x 4 pixels"]),
        (annotations(size=(0, 5)), ["is said to have 5 x 0 pixels"]),
        (annotations(name="a/.."), ["'a/..' names no image"]),
        (annotations(shape("polyline", points="1,1;2,2")), ["1.png: holds <polyline>, which has no area", "polygon"]),
        (annotations(shape("skeleton")), ["1.png: holds <skeleton>"]),
        (annotations("<box/>"), ["1.png: <box> label: Field required"]),
        (annotations(shape("polygon", points="1,1;2,2")), ["1.png: a polygon has fewer than three corners"]),
        (annotations(shape("polygon", points="")), ["1.png", "no numbers"]),
        (annotations(shape("polygon", points="1,1;2,2;3")), ["1.png: a polygon's last corner has no y"]),
        (annotations(shape("polygon", points="1,1;2,x;3,3")), ["1.png", "no numbers"]),
        (annotations(shape("polygon", points="1,1;2,nan;3,3")), ["1.png: a polygon reaches out of the image"]),
        (annotations(shape("polygon", points="1,1;2,1e999;3,3")), ["1.png: a polygon reaches out of the image"]),
        (annotations(shape("polygon", points="1,1;2,7;3,3")), ["1.png: a polygon reaches out of the image"]),
        (
            annotations(shape("polygon", points="0,0;5,4;0,4;" * 700_000 + "0,0"), size=(40, 50)),
            ["outlines are longer"],
        ),
        (annotations(shape("box", xtl=0, ytl=0, xbr=1e300, ybr=1)), ["1.png: a polygon reaches out of the image"]),
        (annotations(shape("box", xtl=0, ytl=0, xbr=1, ybr=1, rotation="nan")), ["rotation: Input should be a finite"]),
        (annotations(shape("box", xtl=0, ytl=0, xbr=1, ybr=1, z_order="9" * 5000)), ["<box> z_order: "]),
        (annotations(shape("ellipse", cx=2, cy=2, rx=1e200, ry=1)), ["1.png: a polygon reaches out of the image"]),
        (annotations(shape("mask", rle="3, 4", left=0, top=0, width=2, height=2)), ["do not add up to 2 x 2 pixels"]),
        (annotations(shape("mask", rle="-1, 5", left=0, top=0, width=2, height=2)), ["do not add up"]),
        (annotations(shape("mask", rle=f"{2**63}, 4", left=0, top=0, width=2, height=2)), ["1.png: "]),
        (annotations(shape("mask", rle="9" * 10_000, left=0, top=0, width=2, height=2)), ["1.png: "]),
        (annotations(shape("mask", rle="0, 1.5, 2.5", left=0, top=0, width=2, height=2)), ["1.png: ", "no numbers"]),
        (annotations(shape("mask", rle="0, ,4", left=0, top=0, width=2, height=2)), ["1.png: ", "no numbers"]),
        (annotations(shape("mask", rle="0,0,0,0,0,4", left=0, top=0, width=2, height=2)), ["more run lengths than"]),
        (
            annotations(shape("mask", rle="0, 4", left=4, top=0, width=2, height=2)),
            ["2 x 2", "4, 0", "out of the image"],
        ),
        (annotations(shape("mask", rle="0, 4", left=-1, top=0, width=2, height=2)), ["reaches out of the image"]),
        (annotations(shape("mask", rle="0", left=0, top=0, width=10**9, height=10**9)), ["reaches out of the image"]),
        (annotations(shape("mask", rle="0", left=0, top=0, width=0, height=0)), ["reaches out of the image"]),
        (annotations(shape("mask", rle="0, 4", left=0, top=0, width="two", height=2)), ["<mask> width", "integer"]),
        (
            annotations(
                *[shape("mask", rle="50000000", left=0, top=0, width=10**4, height=5000)] * 21, size=(5000, 10**4)
            ),
            ["1.png: its shapes cover more than 1,000,000,000 pixels"],
        ),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, cli: Cli, content: str, words: list[str]) -> None:
    assert_import_refused(cli, tmp_path, content, words)


def test_a_mask_of_another_size_than_its_image_is_refused(cli: Cli, tmp_path: Path) -> None:
    write_atomic(tmp_path / "data" / "a" / "1.png", encoded(picture(40, 60)))
    write_atomic(tmp_path / "data" / "b" / "2.png", encoded(picture(40, 60)))
    write_atomic(tmp_path / "cvat.xml", export([Draft("1.png", (41, 60), blob(41, 60))]))
    command = ("masks", "import", tmp_path / "cvat.xml", "--out", tmp_path / "out", "--data", tmp_path / "data")
    assert_refused(cli(*command), "1.png: the mask has 60 x 41 pixels", "60 x 40")


def test_many_images_in_few_bytes_take_the_memory_of_one(tmp_path: Path) -> None:
    image = annotations(shape("box", xtl=0, ytl=0, xbr=1, ybr=1), size=(2000, 2000))
    image = image.removeprefix("<annotations>").removesuffix("</annotations>")
    path = write(tmp_path, f"<annotations>{image * 200}</annotations>")
    tracemalloc.start()
    found = sum(annotation.mask is not None for annotation in read_annotations(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == 200
    assert peak < 10 * 2000 * 2000


def test_an_element_that_goes_on_and_on_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "annotations.xml"
    with path.open("wb") as file:
        file.write(b'<annotations><image name="')
        for _ in range(100):
            file.write(b"a" * 2**20)
    began = time.perf_counter()
    with pytest.raises(DataError, match="an element takes more than 67,108,864 bytes"):
        list(read_annotations(path))
    assert time.perf_counter() - began < 60
