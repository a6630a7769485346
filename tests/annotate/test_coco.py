"""COCO files: nothing is lost on the way, and one line for what cannot be read."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotations import MASKS, Mask, assert_import_refused, blob, drawn_shapes, read_one, write_json
from command import Cli
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from pycocotools.coco import COCO

from training.annotate.formats import Draft, read_annotations
from training.annotate.formats.coco import coco_file, decode_regions, polygon_regions


@given(MASKS, st.integers(0, 2**16))
def test_run_lengths_as_pycocotools_writes_them_and_damaged_ones(mask: Mask, seed: int) -> None:
    height, width = mask.shape
    text = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    np.testing.assert_array_equal(decode_regions([{"size": [height, width], "counts": text}], (height, width)), mask)
    rng = np.random.default_rng(seed)
    damaged = list(text)
    damaged[rng.integers(len(text))] = chr(rng.integers(256))
    with suppress(ValueError, OverflowError):
        region = {"size": [height, width], "counts": "".join(damaged)}
        assert decode_regions([region], (height, width)).shape == mask.shape


@settings(deadline=None)  # the first reading imports all formats
@given(st.lists(MASKS, min_size=1, max_size=4))
def test_what_goes_out_as_coco_comes_in_again(tmp_path_factory: pytest.TempPathFactory, masks: list[Mask]) -> None:
    drafts = [Draft(f"a/{i}.png", (m.shape[0], m.shape[1]), m) for i, m in enumerate(masks)]
    found = list(read_annotations(write_json(tmp_path_factory.getbasetemp() / "coco.json", coco_file(drafts))))
    full = [draft for draft in drafts if draft.mask is not None and draft.mask.any()]
    assert [annotation.name for annotation in found] == [draft.name for draft in full]
    for annotation, draft in zip(found, full, strict=True):
        np.testing.assert_array_equal(annotation.mask, draft.mask)


@settings(deadline=None)
@given(MASKS | drawn_shapes())
def test_polygons_are_written_with_their_holes(tmp_path_factory: pytest.TempPathFactory, mask: Mask) -> None:
    """As pycocotools draws them, and as they come in again."""
    content = coco_file([Draft("a.png", (mask.shape[0], mask.shape[1]), mask)], polygon_regions)
    whole = np.zeros(mask.shape, np.bool_)
    for annotation in content["annotations"]:
        (drawn,) = coco.frPyObjects(annotation["segmentation"], *mask.shape)
        found = coco.decode(drawn).astype(bool)
        assert not (whole & found).any()
        assert annotation["area"] == found.sum()
        assert annotation["bbox"] == coco.toBbox(drawn).tolist()
        whole |= found
    np.testing.assert_array_equal(whole, mask)
    if mask.any():
        np.testing.assert_array_equal(read_one(write_json(tmp_path_factory.getbasetemp() / "p.json", content)), mask)


def test_coco_in_every_writing(tmp_path: Path) -> None:
    """Polygons, with what pycocotools makes of them, run lengths as numbers and as text, several regions an image."""
    mask = blob()
    runs = coco.encode(np.asfortranarray(mask, np.uint8))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask.ravel(order="F"), [False]]))).tolist()
    ends = [0, *edges] + ([mask.size] if edges[-1] != mask.size else [])
    counts = np.diff(ends).tolist()
    corners = [[10.5, 5.0, 30.0, 8.5, 20.0, 30.0], [40.0, 20.0, 55.0, 20.0, 55.0, 35.0, 40.0, 35.0]]
    polygons = coco.decode(coco.merge(coco.frPyObjects(corners, 40, 60))).astype(bool)
    content = {
        "images": [
            {"id": 7, "file_name": "a\\1.jpg", "height": 40, "width": 60},
            {"id": 8, "file_name": "a/2.jpg", "height": 40, "width": 60},
            {"id": 9, "file_name": "a/3.jpg", "height": 40, "width": 60},
        ],
        "annotations": [
            {"image_id": 7, "segmentation": corners},
            {"image_id": 8, "segmentation": {"size": [40, 60], "counts": runs["counts"].decode()}},
            {"image_id": 8, "segmentation": corners},
        ],
        "categories": [],
    }
    first, second = read_annotations(write_json(tmp_path / "coco.json", content))
    assert (first.name, second.name) == ("a/1.jpg", "a/2.jpg")
    assert first.mask is not None
    assert first.mask[25, 50]
    np.testing.assert_array_equal(first.mask, polygons)
    np.testing.assert_array_equal(second.mask, mask | polygons)
    content["annotations"] = [{"image_id": 7, "segmentation": {"size": [40, 60], "counts": counts}}]
    np.testing.assert_array_equal(read_one(write_json(tmp_path / "coco.json", content)), mask)


def test_crowds_and_several_annotations_an_image_are_joined(tmp_path: Path) -> None:
    """Of every kind in one image, as pycocotools itself reads them."""
    mask = np.zeros((40, 60), np.bool_)
    mask[30:38, 2:9] = True
    crowd = coco.encode(np.asfortranarray(mask, np.uint8))
    runs = [30 + 2 * 40, *[8, 32] * 7]
    runs[-1] = 40 * 60 - sum(runs[:-1])
    segmentations = [
        {"size": [40, 60], "counts": crowd["counts"].decode()},
        {"size": [40, 60], "counts": [5, 7, 40 * 60 - 12]},
        [[10.5, 5.0, 30.0, 8.5, 20.0, 30.0], [40.0, 20.0, 55.0, 20.0, 55.0, 35.0]],
        {"size": [40, 60], "counts": runs},
    ]
    content = {
        "info": {"description": "a test"},
        "images": [{"id": 3, "file_name": "1.png", "height": 40, "width": 60}],
        "annotations": [
            {"id": n, "image_id": 3, "category_id": 1, "iscrowd": int(isinstance(each, dict)), "segmentation": each}
            for n, each in enumerate(segmentations, start=1)
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    path = write_json(tmp_path / "coco.json", content)
    theirs = COCO(path)
    expected = np.any([theirs.annToMask(annotation) for annotation in theirs.loadAnns(theirs.getAnnIds())], axis=0)
    np.testing.assert_array_equal(read_one(path), expected)
    np.testing.assert_array_equal(decode_regions([segmentations[3]], (40, 60)), mask)


def test_pycocotools_reads_what_is_exported(tmp_path: Path) -> None:
    drafts = [Draft(f"a/{n}.png", (40, 60), blob(seed=n)) for n in range(3)] + [Draft("none.png", (40, 60), None)]
    theirs = COCO(write_json(tmp_path / "coco.json", coco_file(drafts)))
    assert [image["file_name"] for image in theirs.loadImgs(theirs.getImgIds())] == [draft.name for draft in drafts]
    for number, draft in enumerate(drafts, start=1):
        found = theirs.loadAnns(theirs.getAnnIds(imgIds=[number]))
        assert len(found) == (draft.mask is not None)
        for annotation in found:
            np.testing.assert_array_equal(theirs.annToMask(annotation), draft.mask)


SMALL: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "1.png", "height": 4, "width": 5}],
    "annotations": [],
    "categories": [],
}


def coco_with(segmentation: object) -> dict[str, Any]:
    return {**SMALL, "annotations": [{"image_id": 1, "segmentation": segmentation}]}


REGION = {"annotations": [{"image_id": 1, "segmentation": [[1, 1, 4, 1, 4, 3]]}]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"images": [', ["is no JSON file, or ends too early"]),
        (coco_with([[1, 2, 3, 4]]), ["1.png", "fewer than three corners"]),
        (coco_with([[1, 2, 3, 4, 1e9, 5]]), ["1.png", "out of the image"]),
        (coco_with([]), ["1.png", "without polygons"]),
        (coco_with({"size": [4, 5], "counts": [3, 4]}), ["1.png", "do not add up to 4 x 5"]),
        (coco_with({"size": [4, 5], "counts": [2**63 - 1, 2**63 - 1, 22]}), ["1.png", "do not add up"]),
        (coco_with({"size": [5, 4], "counts": [20]}), ["1.png", "of size [5, 4], not [4, 5]"]),
        (coco_with({"size": [4, 5], "counts": "zzzzzzzz"}), ["1.png", "'z' in run lengths"]),
        (coco_with({"size": [4, 5], "counts": "ooo"}), ["1.png", "run lengths end too early"]),
        (coco_with({"size": [4, 5], "counts": ["a"]}), ["1.png"]),
        ({**SMALL, "annotations": [{"image_id": 3, "segmentation": [[1, 1, 2, 2, 3, 1]]}]}, ["no image with id 3"]),
        ({**SMALL, "annotations": [{"image_id": 1}]}, ["annotations.0.segmentation: Field required"]),
        ({**SMALL, "images": [{**SMALL["images"][0], "width": 10**9}]}, ["is said to have 1000000000 x 4 pixels"]),
        (
            json.dumps(coco_with([[1, 1, 2, 2, 3, 7777]])).replace("7777", "1e400").encode(),
            ["1.png", "out of the image"],
        ),
        (json.dumps(coco_with([[1, 1, 2, 2, 3, 7777]])).replace("7777", "NaN").encode(), ["1.png", "out of the image"]),
        (json.dumps(coco_with(7777)).replace("7777", "[" * 800 + "]" * 800).encode(), ["1.png"]),
        (coco_with({"size": [4, 5], "counts": [20.5]}), ["1.png", "no whole numbers"]),
        (coco_with({"size": [4, 5], "counts": [2**70]}), ["1.png", "no whole numbers"]),
        (coco_with({"size": [4, 5], "counts": {}}), ["1.png", "no whole numbers"]),
        (coco_with({"size": 4, "counts": []}), ["a mask cannot be read"]),
        (coco_with({}), ["'size' is missing"]),
        (coco_with(None), ["a mask cannot be read"]),
        (coco_with(3), ["a mask cannot be read"]),
        (coco_with([3]), ["1.png", "fewer than three corners"]),
        (coco_with([["a"] * 6]), ["1.png"]),
        (coco_with([[0, 0, 5, 4, 0, 4] * 400_000]), ["1.png", "longer than 4,000,000 pixels"]),
        ({**SMALL, "images": [{**SMALL["images"][0], "width": 10**400}]}, ["is said to have"]),
        (json.dumps({**SMALL, "images": [{**SMALL["images"][0], "width": 7777}]}).replace("7777", "1e400"), ["width"]),
        ({**SMALL, "images": [{**SMALL["images"][0], "file_name": ""}], **REGION}, ["'' names no image"]),
        ({**SMALL, "images": [{**SMALL["images"][0], "file_name": "a/.."}], **REGION}, ["'a/..' names no image"]),
        ({**SMALL, "images": [{**SMALL["images"][0], "file_name": 3}]}, ["images.0.file_name", "string"]),
        (
            {**SMALL, "images": [{**SMALL["images"][0], "file_name": "\ud800.png"}], **REGION},
            ["\\ud800.png' is no text"],
        ),
        ({**SMALL, "images": [{**SMALL["images"][0], "file_name": "con.png"}], **REGION}, ["'con.png'", "Windows"]),
        ({**SMALL, "images": [{**SMALL["images"][0], "file_name": "a\nb.png"}], **REGION}, ["'a\\nb.png'", "control"]),
        ({**SMALL, "images": [{**SMALL["images"][0], "id": []}]}, ["images.0.id"]),
        ({**SMALL, "images": SMALL["images"] * 2}, ["two images have the same id"]),
        ({**SMALL, "images": 3}, ["images: Input should be a valid list"]),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, cli: Cli, content: object, words: list[str]) -> None:
    assert_import_refused(cli, tmp_path, content, words)
