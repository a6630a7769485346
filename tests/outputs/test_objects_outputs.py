"""Outputs of objects, as the programs that they are for read them."""

import csv
import io
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from pictures import picture
from pycocotools.coco import COCO

from alserve.label_studio.brush import decode_brush
from alserve.objects import find_objects
from alserve.outputs import OUTPUTS, Case
from alserve.postprocessing import PostProcessing
from alserve.predictor import Prediction, Predictor


@pytest.fixture(scope="module")
def case(predictor: Predictor) -> Case:
    image = picture(150, 211)
    return Case(image, predictor.predict(image), PostProcessing(threshold=0.4))


def prediction_of(case: Case) -> Prediction:
    assert isinstance(case.prediction, Prediction)
    return case.prediction


def test_polygons_are_geojson(case: Case) -> None:
    content = OUTPUTS["polygons"].encode(case)
    shapes = shapely.get_parts(shapely.from_geojson(content))
    rows, columns = np.indices(case.mask.shape) + 0.5
    assert case.mask.any()
    np.testing.assert_array_equal(shapely.contains_xy(shapely.union_all(shapes), columns, rows), case.mask)
    features = json.loads(content)["features"]
    assert [each["properties"]["area"] for each in features] == [item.area for item in find_objects(case.mask)]
    assert {each["properties"]["classification"]["name"] for each in features} == {case.prediction.label}
    assert {each["properties"]["objectType"] for each in features} == {"annotation"}


def test_objects_are_a_table(case: Case) -> None:
    rows = list(csv.DictReader(io.StringIO(OUTPUTS["objects"].encode(case).decode())))
    items = list(find_objects(case.mask))
    assert [int(row["object"]) for row in rows] == [item.number for item in items]
    assert sum(int(row["area"]) for row in rows) == case.mask.sum()
    for row, item in zip(rows, items, strict=True):
        left, top, width, height = (int(row[key]) for key in ("left", "top", "width", "height"))
        probability = prediction_of(case).probability()[top : top + height, left : left + width][item.mask]
        assert float(row["mean_probability"]) == pytest.approx(probability.mean(), rel=1e-4)
        assert float(row["max_probability"]) == pytest.approx(probability.max(), rel=1e-4)
        assert (float(row["centroid_x"]), float(row["centroid_y"])) == pytest.approx(item.centroid, rel=1e-4)
        assert row["class"] == case.prediction.label
        assert row["touches_border"] == str(int(item.touches_border))


def test_coco_is_read_by_pycocotools(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_bytes(OUTPUTS["coco"].encode(case))
    coco = COCO(path)
    ((number, image),) = coco.imgs.items()
    assert (image["file_name"], image["height"], image["width"]) == ("image", *case.mask.shape)
    for annotation, item in zip(coco.imgToAnns[number], case.objects, strict=True):
        drawn = coco.annToMask(annotation).astype(np.bool_)
        left, top, width, height = annotation["bbox"]
        assert (left, top, width, height) == item.box
        own = np.zeros_like(drawn)
        own[top : top + height, left : left + width] = item.mask
        assert (drawn & own).sum() >= 0.98 * (drawn | own).sum()
        assert annotation["area"] == item.area
        assert coco.cats[annotation["category_id"]]["name"] == case.prediction.label


def test_objects_that_touch_are_parted_and_the_mask_stays(case: Case) -> None:
    ramp = np.zeros((40, 60), np.float32)
    for x in (18, 39):
        cv2.circle(ramp, (x, 20), 11, 0.9, -1)
    prediction = replace(prediction_of(case), working_probability=ramp, height=40, width=60)
    whole, parted = (Case(case.image, prediction, PostProcessing(split_touching=side)) for side in (0, 8))
    np.testing.assert_array_equal(whole.mask, parted.mask)
    for each, number in ((whole, 1), (parted, 2)):
        assert len(OUTPUTS["objects"].encode(each).splitlines()) == 1 + number
        assert len(json.loads(OUTPUTS["polygons"].encode(each))["features"]) == number


def test_objects_are_measured_in_micrometres_where_a_pixel_is_known(case: Case) -> None:
    scaled = replace(case, post=replace(case.post, um_per_pixel=0.25))
    plain, found = (
        list(csv.DictReader(io.StringIO(OUTPUTS["objects"].encode(each).decode()))) for each in (case, scaled)
    )
    assert found
    for before, after in zip(plain, found, strict=True):
        assert before == {name: after[name] for name in before}
        assert float(after["area_um2"]) == pytest.approx(float(before["area"]) / 16, rel=1e-4)
        assert float(after["perimeter_um"]) == pytest.approx(float(before["perimeter"]) / 4, rel=1e-4)
        diameter = float(before["equivalent_diameter"])
        assert float(after["equivalent_diameter_um"]) == pytest.approx(diameter / 4, rel=1e-4)


def test_tasks_of_label_studio_have_the_mask(case: Case) -> None:
    task = json.loads(OUTPUTS["label-studio"].encode(case))
    assert task["data"] == {"image": "/data/local-files/?d=image"}
    (prediction,) = task["predictions"]
    (region,) = prediction["result"]
    shape = region["original_height"], region["original_width"]
    np.testing.assert_array_equal(decode_brush(bytes(region["value"]["rle"]), shape), case.mask)
    assert 0 < prediction["score"] < 1


def test_probabilities_are_exact_to_a_65535th(case: Case) -> None:
    written = cv2.imdecode(np.frombuffer(OUTPUTS["probability"].encode(case), np.uint8), cv2.IMREAD_UNCHANGED)
    assert written.dtype == np.uint16
    assert np.abs(written / 65535 - prediction_of(case).probability()).max() <= 0.51 / 65535


def test_a_cutout_is_opaque_inside_and_transparent_outside(case: Case) -> None:
    png = cv2.imdecode(np.frombuffer(OUTPUTS["cutout"].encode(case), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(cv2.cvtColor(png[..., :3], cv2.COLOR_BGR2RGB), case.image)
    probability, opacity = prediction_of(case).probability(), png[..., 3]
    assert (opacity[probability >= 0.65] == 255).all()
    assert (opacity[probability <= 0.15] == 0).all()
    np.testing.assert_array_equal(opacity > 127, probability > 0.4)


def test_nothing_found(case: Case) -> None:
    nothing = Case(case.image, case.prediction, PostProcessing(threshold=1.0))
    assert json.loads(OUTPUTS["polygons"].encode(nothing))["features"] == []
    assert OUTPUTS["objects"].encode(nothing).decode().splitlines()[1:] == []
    assert json.loads(OUTPUTS["coco"].encode(nothing))["annotations"] == []
    assert json.loads(OUTPUTS["label-studio"].encode(nothing))["predictions"][0]["result"] == []


@pytest.mark.parametrize("name", ["polygons", "coco"])
def test_many_objects_are_written_into_one_buffer(case: Case, name: str) -> None:
    disc = np.zeros((12, 12), np.float32)
    cv2.circle(disc, (6, 6), 4, 0.9, -1)
    discs = np.tile(disc, (110, 110))
    prediction = replace(prediction_of(case), working_probability=discs, height=len(discs), width=len(discs))
    many = Case(case.image, prediction)
    assert len(many.objects) == 110**2
    tracemalloc.start()
    size = len(OUTPUTS[name].encode(many))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    probabilities = discs.nbytes if name == "coco" else 0
    assert peak < 1.5 * size + probabilities + 2**21
