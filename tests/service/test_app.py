"""The service as its users meet it: a real process, real requests, compared with the Predictor in here."""

import csv
import io
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import httpx
import numpy as np
import pytest
from pictures import imagej_tiff
from PIL import Image
from pycocotools import mask as coco
from server import serving
from starlette.routing import Route
from web import IMAGE, PNG, SERVE, assert_refused, claiming_png, decoded, drawing, encoded, figure, picture

from alserve.drawing import overlay
from alserve.modelfile import METADATA_KEY, default_model, from_metadata, write_metadata
from alserve.outputs import OUTPUTS, Case
from alserve.postprocessing import PostProcessing
from alserve.predictor import Prediction, Predictor, load
from alserve.service.answering import LABEL_HEADER
from alserve.service.app import app
from alserve.service.middleware import HEALTH, REQUEST_ID
from alserve.service.openapi import docs_page
from alserve.service.responses import ErrorResponse, PredictBatchResponse, PredictResponse
from alserve.service.settings import MAX_IMAGES


def test_predict_answers_what_the_predictor_says(client: httpx.Client, predictor: Predictor) -> None:
    everything = {"include": "mask,cam,overlay,probability"}
    answer = client.post("/predict", files={"image": PNG}, params=everything).raise_for_status().json()
    expected = predictor.predict(IMAGE)

    assert answer["label"] == expected.label
    assert answer["scores"] == pytest.approx(expected.scores, abs=1e-5)
    assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert (answer["height"], answer["width"]) == IMAGE.shape[:2]
    assert (answer["threshold"], answer["warning"]) == (predictor.spec.threshold, None)
    np.testing.assert_array_equal(picture(answer["mask"]), expected.mask() * 255)
    assert answer["foreground"] == pytest.approx(expected.mask().mean())
    np.testing.assert_allclose(picture(answer["cam"]), expected.cam() * 255, atol=0.51)
    assert answer["cam"]["class"] == expected.label
    drawn = cv2.cvtColor(picture(answer["overlay"]), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(drawn, overlay(IMAGE, expected.mask()))
    np.testing.assert_allclose(picture(answer["probability"]), expected.probability() * 65535, atol=0.51)


def middle_of(prediction: Prediction) -> float:
    """A threshold that parts the image's pixels, whatever the model thinks of it."""
    return round(float(np.median(prediction.probability())), 6)


def test_an_answer_has_what_was_asked_for(client: httpx.Client, predictor: Predictor) -> None:
    def ask(**options: str) -> dict[str, Any]:
        answer: dict[str, Any] = client.post("/predict", content=PNG, params=options).raise_for_status().json()
        return answer

    parts = {"mask", "cam", "overlay", "probability"}
    assert parts & set(ask()) == {"mask", "cam"}
    assert parts & set(ask(include="")) == set()
    assert parts & set(ask(include="overlay,mask")) == {"overlay", "mask"}
    prediction = predictor.predict(IMAGE)
    above = middle_of(prediction)
    half = ask(threshold=str(above), mask_format="rle", include="mask")
    expected = prediction.mask(above)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(coco.decode(half["mask"]["rle"]), expected)
    assert (half["threshold"], half["foreground"]) == (above, pytest.approx(expected.mean()))


def test_pictures_follow_the_options(client: httpx.Client, predictor: Predictor) -> None:
    expected = predictor.predict(IMAGE)
    above = middle_of(expected)
    for label in predictor.spec.classes:
        cam = client.post("/cam", content=PNG, params={"label": label}).raise_for_status()
        np.testing.assert_allclose(decoded(cam.content), expected.cam(label) * 255, atol=0.51)
    assert client.post("/cam", content=PNG).content == client.post("/cam?label=" + expected.label, content=PNG).content
    mask = client.post("/segment", content=PNG, params={"threshold": above}).raise_for_status()
    np.testing.assert_array_equal(decoded(mask.content), expected.mask(above) * 255)
    drawn = client.post("/overlay", content=PNG, params={"threshold": above}).raise_for_status()
    pixels = cv2.cvtColor(decoded(drawn.content), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(pixels, overlay(IMAGE, expected.mask(above)))
    assert drawn.headers["content-type"] == "image/png"


def test_masks_are_postprocessed_alike_everywhere(client: httpx.Client, predictor: Predictor) -> None:
    prediction = predictor.predict(IMAGE)
    above = middle_of(prediction)
    params = {"threshold": above, "smooth": 2, "fill_holes": "yes", "min_area": 150}
    expected = prediction.mask(above, smooth=2, fill_holes=True, min_area=150)
    assert (expected != prediction.mask(above)).any()
    mask = client.post("/segment", content=PNG, params=params).raise_for_status()
    np.testing.assert_array_equal(decoded(mask.content), expected * 255)
    included = {"include": "mask,polygons,objects,cutout"}
    answer = client.post("/predict", content=PNG, params=params | included).raise_for_status().json()
    assert answer["foreground"] == pytest.approx(expected.mean())
    np.testing.assert_array_equal(picture(answer["mask"]), expected * 255)
    np.testing.assert_array_equal(picture(answer["cutout"])[..., 3] > 127, expected)
    rows = answer["objects"]["csv"].splitlines()[1:]
    assert sum(int(row.split(",")[3]) for row in rows) == expected.sum()
    assert len(answer["polygons"]["geojson"]["features"]) == len(rows)
    post = PostProcessing(above, 2, fill_holes=True, min_area=150, split_touching=4, um_per_pixel=0.5)
    params |= {"include": "objects,mask", "split_touching": 4, "um_per_pixel": 0.5}
    answer = client.post("/predict", content=PNG, params=params).raise_for_status().json()
    assert answer["objects"]["csv"].encode() == OUTPUTS["objects"].encode(Case(IMAGE, prediction, post))
    np.testing.assert_array_equal(picture(answer["mask"]), expected * 255)
    params["um_per_pixel"] = "auto"
    for content, side in ((imagej_tiff(IMAGE, 0.25), 0.25), (PNG, None)):
        found = client.post("/predict", content=content, params=params).raise_for_status().json()
        (_, row, *_) = csv.reader(found["objects"]["csv"].splitlines())
        assert row[-3] == ("" if side is None else f"{int(row[3]) * side**2:.6g}")
        assert found["warning"] == (
            None if side else "the file states no usable size of a pixel: measured in pixels only"
        )
        table = client.post("/segment", content=content, params={"format": "objects", "um_per_pixel": "auto"})
        assert "area_um2" in table.raise_for_status().text


@pytest.mark.parametrize(
    ("asked", "output"),
    [("png", "mask"), ("mask", "mask"), ("geojson", "polygons"), ("coco", "coco"), ("csv", "objects")]
    + [(name, name) for name in ("cutout", "overlay", "probability")],
)
def test_segment_answers_any_output_as_a_file(
    client: httpx.Client, predictor: Predictor, asked: str, output: str
) -> None:
    prediction = predictor.predict(IMAGE)
    post = PostProcessing(middle_of(prediction), min_area=20)
    params = {"format": asked, "threshold": str(post.threshold), "min_area": "20"}
    answer = client.post("/segment", content=PNG, params=params).raise_for_status()
    expected = OUTPUTS[output].encode(Case(IMAGE, prediction, post))
    assert answer.headers["content-type"].split(";")[0] == OUTPUTS[output].media_type
    if answer.headers["content-type"].startswith("image/"):
        assert decoded(answer.content) == pytest.approx(decoded(expected), abs=8)
    else:  # the digits after the point can differ with the number of threads
        assert re.sub(rb"\.\d+", b"", answer.content) == re.sub(rb"\.\d+", b"", expected)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (
            "/predict?include=mask,shoes",
            "unknown output 'shoes'; there are cam, coco, cutout, label-studio, mask, objects, overlay, polygons, ",
        ),
        ("/predict_batch?include=probabilty", "did you mean probability?"),
        ("/predict?mask_format=tiff", "'png' or 'rle'"),
        ("/predict?threshold=1.5", "less than or equal to 1"),
        ("/segment?threshold=nan", "threshold"),
        ("/segment?include=mask", "unknown option 'include'; allowed: threshold, smooth, fill_holes, min_area, split_"),
        ("/segment?format=geojsn", "unknown output 'geojsn'"),
        ("/segment?smooth=-1", "greater than or equal to 0"),
        ("/segment?smooth=1e9", "less than or equal to 20"),
        ("/segment?min_area=1.5", "valid integer"),
        ("/predict?split_touching=-1", "greater than or equal to 0"),
        ("/predict?split_touching=inf", "finite number"),
        ("/predict?um_per_pixel=0", "greater than 0"),
        ("/predict?um_per_pixel=nan", "finite number"),
        ("/segment?fill_holes=perhaps", "valid boolean"),
        ("/overlay?threshold=half", "valid number"),
        ("/cam?label=shoes", "unknown class 'shoes'; there are irregular, regular"),
        ("/cam?label=regluar", "did you mean regular?"),
        ("/predict_batch?threshhold=0.5", "unknown option 'threshhold'"),
    ],
)
def test_a_bad_option_is_refused_with_what_is_allowed(client: httpx.Client, page: str, words: str) -> None:
    assert_refused(client.post(page, content=PNG), 422, words)


def test_several_images_get_an_answer_or_an_error_each(client: httpx.Client) -> None:
    files = [
        ("images", ("one.png", PNG)),
        ("images", ("../../etc/two.png", b"no image")),
        ("images", ("three.tif", encoded(drawing(40, 300, seed=1), ".tiff"))),
        ("images", ("four.png", claiming_png(16_000, 16_000))),
    ]
    answer = client.post("/predict_batch", files=files).raise_for_status().json()
    PredictBatchResponse.model_validate(answer)
    results = answer["results"]

    assert [result["name"] for result in results] == [name for _, (name, _) in files]
    assert [result.get("status", 200) for result in results] == [200, 415, 200, 413]
    assert {key: value for key, value in results[0].items() if key != "name"} == client.post(
        "/predict", content=PNG
    ).json()
    assert_refused(client.post("/predict_batch", content=PNG), 400, "no form")
    assert_refused(client.post("/predict_batch", files={"image": PNG}), 400, "no field 'images'")
    assert_refused(client.post("/predict_batch", files=[files[0]] * (MAX_IMAGES + 1)), 400, "too many files")


def test_how_an_image_was_read_is_said(client: httpx.Client) -> None:
    pages = io.BytesIO()
    Image.fromarray(IMAGE).save(pages, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))] * 2)

    answer = client.post("/predict", content=pages.getvalue()).raise_for_status().json()

    assert answer["warning"] == "the first of several frames is used"
    assert (answer["height"], answer["width"]) == IMAGE.shape[:2]


@pytest.mark.parametrize("content_type", ["image/png", "image/jpg", "application/octet-stream", None])
def test_a_raw_body_is_answered_like_a_form(client: httpx.Client, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    raw = client.post("/predict", content=PNG, headers=headers).raise_for_status()
    form = client.post("/predict", files={"image": ("a name.png", PNG, "image/png")}, data={"note": "kept out"})

    assert raw.json() == form.raise_for_status().json()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (40, 900), (301, 64)])
def test_segment_answers_a_mask_of_the_images_own_size(
    client: httpx.Client, predictor: Predictor, height: int, width: int
) -> None:
    image = drawing(height, width, seed=3)
    answer = client.post("/segment", files={"image": encoded(image)}).raise_for_status()
    expected = predictor.predict(image)

    assert answer.headers["content-type"] == "image/png"
    assert unquote(answer.headers[LABEL_HEADER]) == expected.label
    np.testing.assert_array_equal(decoded(answer.content), expected.mask() * 255)


def test_model_says_what_runs_and_where(client: httpx.Client, predictor: Predictor) -> None:
    answer = client.get("/model").raise_for_status().json()

    engine = predictor.engine
    assert (answer.pop("sha256"), answer.pop("device")) == (engine.sha256, engine.device)
    assert answer.pop("precision") == engine.precision
    assert answer.pop("device_reason")
    spec = from_metadata({METADATA_KEY: json.dumps(answer)}, "the answer")
    assert spec == predictor.spec


def test_metrics_count_and_time(client: httpx.Client, predictor: Predictor) -> None:
    label = predictor.predict(IMAGE).label
    stages = [f'alserve_stage_seconds_count{{stage="{stage}"}}' for stage in ("decode", "queue", "inference", "encode")]
    series = {
        'alserve_requests_total{endpoint="/predict",status="200"}': 3,
        'alserve_requests_total{endpoint="/predict",status="415"}': 2,
        'alserve_requests_total{endpoint="unknown",status="404"}': 1,
        f'alserve_images_total{{label="{label}"}}': 3,
        'alserve_image_errors_total{error="ImageKindError"}': 2,
        **dict.fromkeys(stages, 3),
    }
    before = {name: figure(client, name) for name in series}
    for content in (PNG, b"text", PNG, b"text", PNG):
        client.post("/predict", content=content)
    client.get("/no/such/page")

    assert {name: figure(client, name) - before[name] for name in series} == series
    assert figure(client, "alserve_requests_in_progress") == 1
    page = client.get("/metrics").text
    assert f'sha256="{predictor.engine.sha256}"' in page
    assert 'device="cpu"' in page
    assert "/no/such/page" not in page


def test_every_request_has_an_id_and_a_line_in_the_log(client: httpx.Client, service_folder: Path) -> None:
    sane = "from-a.client:7"
    assert client.get("/model", headers={REQUEST_ID: sane}).headers[REQUEST_ID] == sane
    for odd in ("", "a b", "x" * 65, 'quote"'):
        made = client.post("/predict", content=b"text", headers={REQUEST_ID: odd}).headers[REQUEST_ID]
        assert made != odd
        assert len(made) == 32
    (line,) = log_lines(service_folder, sane)
    assert (line["message"], line["status"]) == ("GET /model", 200)
    assert line["seconds"] >= 0
    (line,) = log_lines(service_folder, made)
    assert (line["message"], line["status"]) == ("POST /predict", 415)
    assert not any("/readyz" in line["message"] for line in log_lines(service_folder))


def log_lines(folder: Path, request_id: str | None = None) -> list[dict[str, Any]]:
    """All lines of the service's log, or those of one request: waited for, as they come after its answer."""
    (log,) = folder.glob("server-*.log")
    end = time.monotonic() + 10
    while True:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line[-1] == "}"]
        found = [line for line in lines if request_id in (None, line.get("request_id"))]
        if found or time.monotonic() > end:
            return found
        time.sleep(0.05)


def test_the_description_is_that_of_the_service(client: httpx.Client) -> None:
    description = client.get("/openapi.json").raise_for_status().json()
    asked = {(path, method.upper()) for path, methods in description["paths"].items() for method in methods}
    there = {(route.path, method) for route in app.routes if isinstance(route, Route) for method in route.methods or ()}
    health = {(path, "GET") for path in HEALTH}

    assert (
        asked | {(page, "GET") for page in ("/openapi.json", "/docs", "/")}
        == {pair for pair in there if pair[1] != "HEAD"} | health
    )
    for path, method in asked:
        operation = description["paths"][path][method.lower()]
        for status, answer in operation["responses"].items():
            example = answer["content"].get("application/json", {}).get("example")
            if status != "200":
                ErrorResponse.model_validate(example)
            elif path in {"/predict", "/predict_batch"}:
                (PredictResponse if path == "/predict" else PredictBatchResponse).model_validate(example)
        assert f"{method} {path}" in docs_page()
    names = [option["name"] for option in description["paths"]["/predict"]["post"]["parameters"]]
    assert names == [*PostProcessing.__dataclass_fields__, "include", "mask_format"]
    page = client.get("/docs").raise_for_status()
    assert page.headers["content-type"].startswith("text/html")
    assert "src=" not in page.text


def test_parallel_requests_get_their_own_answers(client: httpx.Client) -> None:
    images = [encoded(drawing(120 + 30 * index, 260 - 20 * index, seed=index)) for index in range(8)]
    images[5] = b"one bad image among them"
    one_by_one = [client.post("/predict", files={"image": image}) for image in images]

    with ThreadPoolExecutor(len(images)) as pool:
        together = list(pool.map(lambda image: client.post("/predict", files={"image": image}), images))

    assert [answer.status_code for answer in together] == [200] * 5 + [415] + [200] * 2
    assert [answer.json() for answer in together] == [answer.json() for answer in one_by_one]
    assert len({answer.text for answer in together}) == len(images)


def test_a_model_by_name_and_a_label_beyond_latin(tmp_path: Path) -> None:
    path = default_model()
    spec = load(path).spec
    names = tuple(f"腺癌 {number}" for number in range(len(spec.classes)))
    (tmp_path / "other.onnx").write_bytes(write_metadata(path.read_bytes(), spec.model_copy(update={"classes": names})))

    with serving([*SERVE, "--model", "other.onnx", "--host", "localhost"], tmp_path) as client:
        assert tuple(client.get("/model").json()["classes"]) == names
        label = unquote(client.post("/segment", content=PNG).raise_for_status().headers[LABEL_HEADER])
        assert label == client.post("/predict", content=PNG).json()["label"]
        assert label in names
