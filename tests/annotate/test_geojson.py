"""GeoJSON of QuPath and of our own polygons: nothing is lost on the way, and one line for what cannot be read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotations import MASKS, Mask, drawn_shapes, write_json
from command import Cli, assert_refused
from hypothesis import given, settings
from pictures import encoded, picture

from alserve.files import write_atomic
from alserve.images.codec import decode_mask
from alserve.objects import find_objects
from alserve.outputs.polygons import features
from alserve.predictor import Predictor
from training.annotate.formats import read_annotations


def square(side: float, left: float = 0, top: float = 0) -> list[list[float]]:
    corners = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
    return [[left + x, top + y] for x, y in corners]


def shape(kind: str, coordinates: object, name: str | None = "cell") -> dict[str, Any]:
    """A feature as QuPath exports it."""
    return {
        "type": "Feature",
        "id": "5f0d3c1e-9b52-4d0c-8f0b-0d3a5d0f6d0a",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation"}
        | ({"classification": {"name": name, "color": [200, 0, 0]}} if name else {}),
    }


def collection(*features: object) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def read(folder: Path, content: object, size: tuple[int, int]) -> Mask | None:
    (annotation,) = read_annotations(write_json(folder / "a.geojson", content), lambda _: size)
    return annotation.mask


@settings(deadline=None)  # the first reading imports all formats
@given(MASKS | drawn_shapes())
def test_our_polygons_come_in_again_with_their_holes(tmp_path_factory: pytest.TempPathFactory, mask: Mask) -> None:
    found = [json.loads(each) for each in features(list(find_objects(mask)), "cell")]
    if found:
        height, width = mask.shape
        read_again = read(tmp_path_factory.getbasetemp(), collection(*found), (height, width))
        np.testing.assert_array_equal(read_again, mask)


@pytest.mark.parametrize("form", ["collection", "list", "one"])
def test_polygons_with_holes_points_and_background(tmp_path: Path, form: str) -> None:
    expected = np.zeros((20, 30), np.bool_)
    expected[2:12, 2:12] = True
    expected[4:6, 4:6] = False
    ring = shape("Polygon", [square(10, 2, 2), square(2, 4, 4)], None)
    if form == "one":
        np.testing.assert_array_equal(read(tmp_path, ring, (20, 30)), expected)
        return
    expected[8:10, 20:22] = expected[8:10, 25:27] = True
    expected[7:11, 7:11] = False
    expected[8:10, 8:10] = True
    features = [
        shape("Polygon", [square(2, 8, 8)]),  # inside of the next one, which is inside of the ring
        shape("Polygon", [square(4, 7, 7)], "Ignore*"),
        shape("MultiPolygon", [[square(2, 20, 8)], [square(2, 25, 8)]], "other"),
        shape("Point", [3, 3]),
        shape("MultiPoint", [[3, 3], [1e9, 0]]),
        shape("LineString", [[0, 0], [9, 9]]),
        ring,
    ]
    found = read(tmp_path, collection(*features) if form == "collection" else features, (20, 30))
    np.testing.assert_array_equal(found, expected)


def test_files_find_their_images_by_name(cli: Cli, tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.png", "b/3.png", "b/4.png"):
        write_atomic(tmp_path / "data" / name, encoded(picture(20, 30)))
    cell = collection(shape("Polygon", [square(5, 1, 1)]))
    for name in ("1.geojson", "deep/2.png.geojson", "7.geojson"):
        write_json(tmp_path / "qupath" / name, cell)
    write_json(tmp_path / "qupath" / "3.geojson", collection())
    write_atomic(tmp_path / "qupath" / "4.png", encoded(picture(20, 30)))  # the image beside it
    command = ("masks", "import", tmp_path / "qupath", "--out", tmp_path / "out")
    code, said, warned = cli(*command, "--data", tmp_path / "data")
    assert (code, said) == (0, f"2 masks, in {tmp_path / 'out'}\n")
    assert "3.geojson: holds no shape, left out" in warned
    assert "7.geojson: no such image" in warned
    for name in ("a/1.png", "a/2.png"):
        mask = decode_mask((tmp_path / "out" / name).read_bytes())
        assert mask.shape == (20, 30)
        assert mask.sum() == mask[1:6, 1:6].sum() == 25
    assert_refused(cli(*command), "does not tell how large an image is", "--data")
    code, _, _ = cli(
        "masks", "import", tmp_path / "qupath" / "1.geojson", "--out", tmp_path / "one", "--data", tmp_path / "data"
    )
    assert code == 0
    assert (tmp_path / "one" / "a" / "1.png").is_file()


def test_files_may_lie_beside_the_images_of_the_data_set(cli: Cli, tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/2.png"):
        write_atomic(tmp_path / "data" / name, encoded(picture(20, 30)))
        write_json((tmp_path / "data" / name).with_suffix(".geojson"), collection(shape("Polygon", [square(5)])))
    write_atomic(tmp_path / "data" / "a" / "._1.geojson", b"\0")
    command = ("masks", "import", tmp_path / "data", "--out", tmp_path / "out", "--data", tmp_path / "data")
    assert cli(*command)[:2] == (0, f"2 masks, in {tmp_path / 'out'}\n")


def test_what_a_folder_run_wrote_comes_in_again(cli: Cli, tmp_path: Path, predictor: Predictor) -> None:
    for number, name in enumerate(("a/1.jpg", "b/2.png")):
        write_atomic(tmp_path / "data" / name, encoded(picture(90, 120, number)))
    command = ("segment", tmp_path / "data", "--out", tmp_path / "run", "--save", "mask,polygons", "--threshold", "0.4")
    assert cli(*command, "--model", predictor.engine.path)[0] == 0
    command = ("masks", "import", tmp_path / "run" / "polygons", "--out", tmp_path / "out", "--data", tmp_path / "data")
    assert cli(*command)[0] == 0
    for name in ("a/1.png", "b/2.png"):
        mask = decode_mask((tmp_path / "run" / "masks" / name).read_bytes())
        assert mask.any()
        np.testing.assert_array_equal(decode_mask((tmp_path / "out" / name).read_bytes()), mask)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"type": "FeatureCollection", "features": [', ["1.geojson: is no JSON file, or ends too early"]),
        ("[" * 100_000, ["1.geojson: is no JSON file"]),
        (collection(3), ["1.geojson: 0: Input should be"]),
        (collection({"geometry": None}), ["1.geojson: 0.geometry"]),
        ({"type": "FeatureCollection", "features": 3}, ["1.geojson: Input should be a valid list"]),
        (collection(shape("Polygon", None)), ["holds a Polygon that cannot be read"]),
        (collection(shape("GeometryCollection", [])), ["1.geojson: holds a GeometryCollection that cannot be read"]),
        (collection(shape("MultiPolygon", [[]])), ["1.geojson: a polygon without corners"]),
        (collection(shape("MultiPolygon", [3])), ["1.geojson: a polygon without corners"]),
        (collection(shape("Polygon", [3])), ["1.geojson: a polygon has fewer than three corners"]),
        (collection(shape("Polygon", [[[1, 1], [2, 2]]])), ["1.geojson: a polygon has fewer than three corners"]),
        (collection(shape("Polygon", [[[1, 1, 0], [2, 2, 0], [2, 1, 0]]])), ["fewer than three corners"]),
        (collection(shape("Polygon", [[[1, 1], [2], [2, 1]]])), ["1.geojson: "]),
        (collection(shape("Polygon", [[["a", "b"]] * 3])), ["1.geojson: "]),
        (collection(shape("Polygon", [[{}] * 3])), ["1.geojson: "]),
        (collection(shape("Polygon", [[[10**400, 1]] * 3])), ["1.geojson: "]),
        (
            collection(shape("Polygon", [[[1, 1], [2, 2], [None, 1]]])),
            ["1.geojson: a polygon reaches out of the image"],
        ),
        (collection(shape("Polygon", [square(30)])), ["1.geojson: a polygon reaches out of the image"]),
        (
            json.dumps(collection(shape("Polygon", [square(7777)]))).replace("7777", "NaN"),
            ["1.geojson: a polygon reaches out of the image"],
        ),
        (
            json.dumps(collection(shape("Polygon", 7777))).replace("7777", "[" * 300 + "]" * 300),
            ["1.geojson: "],
        ),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, cli: Cli, content: object, words: list[str]) -> None:
    for name in ("a/1.png", "b/2.png"):
        write_atomic(tmp_path / "data" / name, encoded(picture(20, 30)))
    text = content if isinstance(content, str) else json.dumps(content)
    write_atomic(tmp_path / "in" / "1.geojson", text.encode())
    command = ("masks", "import", tmp_path / "in", "--out", tmp_path / "out", "--data", tmp_path / "data")
    assert_refused(cli(*command), *words)
    assert not (tmp_path / "out").exists()
