"""The report: one file that holds the figures, the pictures, and nothing from elsewhere."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from alserve.geometry import resize
from alserve.modelfile import ModelSpec, Parity, Provenance
from alserve.predictor import Prediction
from training.report import DASH, ReportCase, learning_curve, write_report
from training.tissue import CLASSES, draw_tissue

ROUNDS = [
    {
        "round": number + 1,
        "masks_used": 8 + 2 * number,
        "pseudo_labels": 12 + number,
        "threshold": 0.41,
        "seconds": 61.0,
        "test_dice": dice,
        "test_accuracy": 0.958,
    }
    for number, dice in enumerate((0.8431, 0.8817, 0.9123))
]


@pytest.fixture
def spec() -> ModelSpec:
    provenance = Provenance(
        encoder="some_encoder",
        method="label-propagation",
        seed=7,
        rounds=3,
        masks_used=12,
        train_images=48,
        data_fingerprint="5eed5eed",
        versions={"torch": "2.99.1"},
    )
    return ModelSpec(
        classes=CLASSES,
        threshold=0.5,
        short_side=64,
        cam_range=(0, 1),
        provenance=provenance,
        parity=(Parity(batch=1, height=64, width=96, max_difference=3e-6),),
    )


def drawn_case(spec: ModelSpec, name: str = "case.png", label: str = "irregular") -> ReportCase:
    """A case whose prediction is the truth, and whose label is 'regular'."""
    image, truth = draw_tissue(np.random.default_rng(0), "regular", (64, 96))
    scores = np.array([0.75, 0.25], np.float32)
    cams = np.stack([resize(truth.astype(np.float32), (2, 3))] * 2)
    prediction = Prediction(spec, 64, 96, scores, truth.astype(np.float32), cams)
    return ReportCase(name, image, prediction, label, truth)


class Page(HTMLParser):
    """All that a page names in attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "srcset", "href", "data"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_figures_pictures_and_commands(tmp_path: Path, spec: ModelSpec) -> None:
    path = tmp_path / "new" / "report.html"
    case = drawn_case(spec)
    write_report(
        path,
        title="A run",
        rounds=ROUNDS,
        spec=spec,
        settings={"initial": 4, "crop": None},
        cases=[case],
        asked=[("round 1, asked.png", case.image)],
        model="out put/model.onnx",
    )
    page = Page(path.read_text())
    shown = page.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    for figure in ("84.3 %", "88.2 %", "91.2 %", "95.8 %", "0.41", "of 48", "3 min 03 s", "regular 75.0 %"):
        assert figure in shown
    for fact in ("✗ is irregular", "Dice 100.0 %", "5eed5eed", "2.99.1", "3.0e-06", "round 1, asked.png"):
        assert fact in shown
    assert "alserve segment IMAGES --out results --model 'out put/model.onnx'" in shown
    assert "alserve serve --model 'out put/model.onnx'" in shown
    assert page.tags.count("img") == 1 + 4 + 1


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path, spec: ModelSpec) -> None:
    path = tmp_path / "report.html"
    write_report(path, title="t", rounds=ROUNDS, spec=spec, settings={}, cases=[drawn_case(spec)])
    page = Page(path.read_text())
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"@import|url\(", path.read_text())
    pictures = [address.partition(",")[2] for address in page.addresses if "image/webp" in address]
    decoded = [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1) for data in pictures]
    assert [picture.shape for picture in decoded if picture is not None] == [(64, 96, 3)] * 4


def test_names_are_escaped(tmp_path: Path, spec: ModelSpec) -> None:
    evil = "<script>alert('x')</script>\"><img src=x>"
    hostile = spec.model_copy(update={"classes": (evil, "regular")})
    path = tmp_path / "report.html"
    write_report(
        path,
        title=evil,
        rounds=ROUNDS,
        spec=hostile,
        settings={evil: evil},
        cases=[drawn_case(hostile, name=evil, label=evil + "other")],
        asked=[(evil, drawn_case(spec).image)],
        model=evil,
    )
    page = Page(path.read_text())
    assert "script" not in page.tags
    assert "x" not in page.addresses
    assert page.text.count("<script>alert(") >= 7


@pytest.mark.parametrize(
    "rounds",
    [
        [],
        [{"round": 1, "masks_used": 8}],
        [{"round": 1, "masks_used": 8, "pseudo_labels": None, "test_dice": None, "test_accuracy": None}],
    ],
)
def test_what_was_not_measured_is_a_dash_and_has_no_curve(
    tmp_path: Path, spec: ModelSpec, rounds: list[dict[str, object]]
) -> None:
    path = tmp_path / "report.html"
    case = drawn_case(spec)
    bare = ReportCase("no truth", case.image, case.prediction)
    write_report(path, title="t", rounds=rounds, spec=spec, settings={}, cases=[bare])
    page = Page(path.read_text())
    assert f"Dice {DASH}" in page.text
    assert "None" not in page.text
    assert "Truth" not in page.text
    assert not any("svg" in address for address in page.addresses)


def test_the_learning_curve_is_the_same_svg_each_time() -> None:
    curve = learning_curve({"a": ROUNDS}, references={"all masks": 0.93})
    assert curve.rstrip().endswith(b"</svg>")
    assert curve == learning_curve({"a": ROUNDS}, references={"all masks": 0.93})
    others = [
        learning_curve({"a": ROUNDS}),
        learning_curve({"a": ROUNDS}, references={"all masks": 0.94}),
        learning_curve({"a": ROUNDS, "b": ROUNDS}, references={"all masks": 0.93}),
        learning_curve({"a": ROUNDS}, references={"all masks": 0.93}, dark=True),
    ]
    assert len({curve, *others}) == 5


def test_the_curve_passes_over_rounds_without_a_dice() -> None:
    gaps = [{"round": 0, "masks_used": 8, "test_dice": None}, *ROUNDS]
    assert learning_curve({"a": gaps}) == learning_curve({"a": ROUNDS})
