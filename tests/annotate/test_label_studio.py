"""Label Studio's tasks and export: nothing is lost on the way, and one line for what cannot be read."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from annotations import MASKS, Mask, assert_import_refused, blob, read_one, write_json
from command import Cli
from hypothesis import given, settings

from alserve.label_studio.brush import encode_brush
from training.annotate.formats import Draft, read_annotations
from training.annotate.formats.label_studio import SETUP, label_studio_tasks


def test_the_labelling_configuration_fits_the_predictions() -> None:
    (task,) = label_studio_tasks([Draft("1.png", (40, 60), blob())], "")
    ((region,),) = [prediction["result"] for prediction in task["predictions"]]
    image, brush = ET.fromstring(SETUP)  # noqa: S314  our own
    assert task["data"][image.attrib["value"].removeprefix("$")] == "1.png"
    assert brush.tag.lower() == region["type"]
    assert (brush.attrib["name"], brush.attrib["toName"]) == (region["from_name"], region["to_name"])
    assert brush.attrib["toName"] == image.attrib["name"]
    assert [label.attrib["value"] for label in brush] == region["value"]["brushlabels"]


def finished(task: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A task as Label Studio exports it after somebody accepted the prediction."""
    (prediction,) = task["predictions"]
    return {"data": task["data"], "annotations": [{"result": prediction["result"], "was_cancelled": False, **changes}]}


@settings(deadline=None)  # the first reading imports all formats
@given(MASKS)
def test_what_goes_out_to_label_studio_comes_in_again(tmp_path_factory: pytest.TempPathFactory, mask: Mask) -> None:
    (task,) = label_studio_tasks([Draft("a b/1.png", (mask.shape[0], mask.shape[1]), mask)], "/data/local-files/?d=")
    assert ("predictions" in task) == mask.any()
    if mask.any():
        path = write_json(tmp_path_factory.getbasetemp() / "tasks.json", [finished(task)])
        (annotation,) = read_annotations(path)
        assert annotation.name == "a b/1.png"
        np.testing.assert_array_equal(annotation.mask, mask)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/local-files/?d=tissue/a%20b/1.jpg", "tissue/a b/1.jpg"),
        ("/data/upload/12/3f2a1b9c-1.jpg", "1.jpg"),
        ("s3://bucket/tissue/a/1.jpg", "/tissue/a/1.jpg"),
        ("https://example.org/a/%C3%A4.jpg?token=x", "/a/ä.jpg"),
        ("a\\1.jpg", "a/1.jpg"),
    ],
)
def test_the_image_of_a_label_studio_task(tmp_path: Path, address: str, name: str) -> None:
    (task,) = label_studio_tasks([Draft("x", (40, 60), blob())], "")
    task["data"] = {"other": 3, "picture": address}
    (annotation,) = read_annotations(write_json(tmp_path / "tasks.json", [finished(task)]))
    assert annotation.name == name


def test_label_studio_regions_are_joined_skips_are_kept_and_the_latest_annotation_counts(tmp_path: Path) -> None:
    first, second, third = label_studio_tasks([Draft(f"{n}.png", (40, 60), blob(seed=n)) for n in range(3)], "")
    both = finished(first)
    both["annotations"][0]["result"] += [*second["predictions"][0]["result"], {"type": "choices", "value": {}}]
    latest = finished(second, updated_at="2026-01-01T00:00:00Z")
    latest["annotations"].append({"result": third["predictions"][0]["result"], "updated_at": "2026-02-01T00:00:00Z"})
    skipped = finished(third, was_cancelled=True)
    untouched = {"data": {"image": "4.png"}, "annotations": []}
    found = list(read_annotations(write_json(tmp_path / "tasks.json", [both, latest, skipped, untouched])))
    assert [annotation.name for annotation in found] == ["0.png", "1.png", "2.png"]
    np.testing.assert_array_equal(found[0].mask, blob(seed=0) | blob(seed=1))
    np.testing.assert_array_equal(found[1].mask, blob(seed=2))
    assert found[2].mask is None


def test_polygons_are_drawn(tmp_path: Path) -> None:
    (task,) = label_studio_tasks([Draft("1.png", (40, 60), blob())], "")
    region = task["predictions"][0]["result"][0]
    region["value"] = {"points": [[10, 25], [50, 25], [50, 75], [10, 75]], "closed": True, "polygonlabels": ["any"]}
    expected = np.zeros((40, 60), bool)
    expected[10:30, 6:30] = True
    np.testing.assert_array_equal(read_one(write_json(tmp_path / "tasks.json", [finished(task)])), expected)


def task_with(**region: Any) -> list[dict[str, Any]]:
    shape = {"original_height": 4, "original_width": 5}
    return [{"data": {"image": "1.png"}, "annotations": [{"result": [{"type": "brushlabels", **shape, **region}]}]}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (task_with(value={"format": "rle", "rle": encode_brush(blob(6, 9))}), ["hold 54 pixels, the image 20"]),
        (task_with(value={"format": "rle", "rle": encode_brush(blob(4, 5))[:-2]}), ["end too early"]),
        ([{"data": {"image": 3}, "annotations": [{"result": []}]}], ["a task names no image"]),
        (task_with(value={"format": "rle", "rle": [300]}), ["a mask cannot be read"]),
        (task_with(value={"format": "rle", "rle": []}, image_rotation=90), ["1.png", "annotate it upright"]),
        (task_with(type="polygonlabels", value={}), ["polygonlabels", "use the brush"]),
        (task_with(type="rectanglelabels", value={"x": 1}), ["1.png", "rectanglelabels", "use the brush"]),
        (task_with(type="polygonlabels", value={"points": [[1, 2], [3, 4]]}), ["1.png", "fewer than three corners"]),
        (task_with(type="polygonlabels", value={"points": [[1, 2], [300, 4], [5, 6]]}), ["1.png", "out of the image"]),
        (task_with(type="polygonlabels", value={"points": [[1, 2, 3]]}), ["1.png"]),
        (task_with(type="polygonlabels", value={"points": "abc"}), ["1.png"]),
        ([{"data": {"image": "\ud800.png"}, "annotations": [{"result": [], "was_cancelled": True}]}], ["is no text"]),
        ([{"data": {"image": "http://["}, "annotations": [{"result": []}]}], ["a mask cannot be read"]),
        ([{"data": {"image": "a/"}, "annotations": [{"result": []}]}], ["'a/' names no image"]),
        ([{"data": 3, "annotations": []}], ["0.data", "dictionary"]),
        ([{"data": {}, "annotations": 3}], ["0.annotations"]),
        (task_with(value={"format": "rle", "rle": 10**12}), ["1.png", "no list of bytes"]),
        (task_with(value={"format": "rle", "rle": ["a"]}), ["a mask cannot be read"]),
        (task_with(value={"format": "rle", "rle": [255] * 40}), ["hold 1073741823 pixels, the image 20"]),
        (task_with(value={"format": "rle", "rle": []}, original_height="x"), ["original_height"]),
        (task_with(value=[]), ["value"]),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, cli: Cli, content: object, words: list[str]) -> None:
    assert_import_refused(cli, tmp_path, content, words)
