"""Another distribution adds an output and an endpoint: both are answered, described and counted."""

from collections.abc import Iterator

import httpx
import pytest
from server import serving
from web import PNG, SERVE, assert_refused, figure

from alserve.predictor import Predictor

OUTPUT = """
from alserve.outputs import OUTPUTS, Case, Output

def encode(case: Case) -> bytes:
    return f"{case.image.shape} {case.prediction.label} {case.mask.sum()}".encode()

def details(case: Case) -> dict[str, str]:
    return {"charset": "ascii"}

OUTPUTS.add("toy")(Output("a toy", "toys", encode, ".txt", "text/plain", draws_on_image=True, details=details))
"""

ENDPOINT = """
from alserve.service.answering import answer_file
from alserve.service.endpoints import ENDPOINTS, Endpoint
from alserve.service.options import MaskOptions

async def respond(request):
    threshold = MaskOptions.read(request.query_params).threshold
    encode = lambda _, prediction: str(prediction.mask(threshold).sum()).encode()
    return await answer_file(request, encode, "text/plain")

ENDPOINTS.add("area")(
    Endpoint("/area", "POST", respond, "Foreground pixels.", "text/plain", options=MaskOptions, body="image")
)
"""

ENTRY_POINTS = "[alserve.outputs]\ntoy = toy_output\n[alserve.service.endpoints]\narea = toy_endpoint\n"


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service beside whose package another one is installed."""
    folder = tmp_path_factory.mktemp("extended")
    (folder / "toy_output.py").write_text(OUTPUT)
    (folder / "toy_endpoint.py").write_text(ENDPOINT)
    (folder / "toy-1.0.dist-info").mkdir()
    (folder / "toy-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (folder / "toy-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    with serving(SERVE, folder, PYTHONPATH=str(folder)) as client:
        yield client


def test_an_output_of_another_distribution_is_answered_and_described(
    extended: httpx.Client, predictor: Predictor
) -> None:
    answer = extended.post("/predict", params={"include": "toy,mask", "threshold": 0.3}, content=PNG)
    expected = predictor.predict(PNG)
    pixels = expected.mask(0.3).sum()

    toy = answer.raise_for_status().json()["toy"]
    assert toy["txt"] == f"(150, 217, 3) {expected.label} {pixels}"
    assert toy["charset"] == "ascii"
    assert_refused(extended.post("/predict?include=toys", content=PNG), 422, "did you mean toy?")
    description = extended.get("/openapi.json").json()
    schema = description["components"]["schemas"]["PredictResponse"]["properties"]["toy"]
    assert schema["properties"]["txt"]["contentMediaType"] == "text/plain"
    options = {option["name"]: option for option in description["paths"]["/predict"]["post"]["parameters"]}
    assert "toy: a toy" in options["include"]["description"]
    assert options["include"]["schema"]["items"]["enum"] == [
        "cam",
        "coco",
        "cutout",
        "label-studio",
        "mask",
        "objects",
        "overlay",
        "polygons",
        "probability",
        "toy",
    ]


def test_an_endpoint_of_another_distribution_is_answered_described_and_counted(
    extended: httpx.Client, predictor: Predictor
) -> None:
    answer = extended.post("/area", params={"threshold": 0.3}, files={"image": PNG}).raise_for_status()

    assert int(answer.text) == predictor.predict(PNG).mask(0.3).sum()
    assert_refused(extended.post("/area", content=b"text"), 415, "not an image")
    assert_refused(extended.get("/area"), 405, "Method Not Allowed")
    described = extended.get("/openapi.json").json()["paths"]["/area"]["post"]
    assert described["responses"]["200"]["content"].keys() == {"text/plain"}
    names = [option["name"] for option in described["parameters"]]
    assert names == ["threshold", "smooth", "fill_holes", "min_area"]
    assert "POST /area" in extended.get("/docs").text
    assert figure(extended, 'alserve_requests_total{endpoint="/area",status="200"}') == 1
