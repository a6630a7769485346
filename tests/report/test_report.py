"""The report: one file that holds the figures, the pictures, and nothing from elsewhere."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from specs import spec_of

from alserve import Predictor
from alserve.files import write_atomic
from alserve.geometry import resize
from alserve.images.codec import encode_png, to_grey
from alserve.measure.dataset import load_dataset
from alserve.modelfile import ModelSpec, Parity
from alserve.predictor import Prediction
from training.annotate.label_studio_api import URL
from training.data.synthetic import draw_dataset
from training.data.tissue import CLASSES, draw_tissue
from training.report import ReportCase, write_report
from training.report.cases import AskedRound, asked_rounds
from training.report.figures import Curve, Dots, draw_curves, draw_dots
from training.report.values import DASH
from training.run.result import RunResult, describe_method

ROUNDS = [
    {
        "round": number + 1,
        "masks_used": 8 + 2 * number,
        "pseudo_labels": 12 + number,
        "threshold": 0.41,
        "test_dice": dice,
        "test_accuracy": 0.958,
    }
    for number, dice in enumerate((0.8431, 0.8817, 0.9123))
]


@pytest.fixture
def spec() -> ModelSpec:
    parity = (Parity(batch=1, height=64, width=96, max_difference=3e-6),)
    return spec_of(CLASSES, method="masks-only").model_copy(update={"parity": parity})


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
        asked=[AskedRound(1, 9, [drawn_case(spec, "asked.png")])],
        model="out put/model.onnx",
    )
    page = Page(path.read_text())
    shown = page.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    for figure in ("84.3 %", "88.2 %", "91.2 %", "95.8 %", "0.41", "of 48", "regular 75.0 %"):
        assert figure in shown
    for fact in (
        "✗ is irregular",
        "Dice 100.0 %",
        "5eed5eed",
        "2.99.1",
        "3.0e-06",
        "Round 1: 9 images, 1 of them shown",
        "asked.png",
    ):
        assert fact in shown
    assert "alserve segment IMAGES --out results --model 'out put/model.onnx'" in shown
    assert "alserve serve --model 'out put/model.onnx'" in shown
    assert page.tags.count("img") == 1 + 4 + 4


@pytest.mark.parametrize(
    ("seconds", "total", "rows"),
    [
        ({1: 61.0, 2: 7.4, 3: 59.9}, "2 min 08 s", ["1 min 01 s", "7 s", "1 min 00 s"]),
        ({0: 3600.0, 1: 61.0, 2: 61.0, 3: 61.0}, "1 h 03 min", ["1 min 01 s"] * 3),
        ({0: 3600.0, 1: 61.0, 3: 61.0}, DASH, ["1 min 01 s", DASH, "1 min 01 s"]),
        ({}, DASH, [DASH] * 3),
    ],
)
def test_the_elapsed_time_is_of_all_rounds_and_what_precedes_them(
    tmp_path: Path, spec: ModelSpec, seconds: dict[int, float], total: str, rows: list[str]
) -> None:
    path = tmp_path / "report.html"
    write_report(path, title="t", rounds=ROUNDS, spec=spec, settings={}, seconds=seconds)
    text = path.read_text().replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert f"<dt>Elapsed time</dt><dd>{total}</dd>" in text
    assert re.findall(r"<td>([^<]*)</td></tr>", text) == rows
    assert ("1 h 00 min before the first round" in text) is (0 in seconds)


@pytest.mark.parametrize("name", ["masks-only", "random"])
def test_both_names_of_a_method_are_said(tmp_path: Path, spec: ModelSpec, name: str) -> None:
    path = tmp_path / "report.html"
    write_report(path, title="t", rounds=ROUNDS, spec=spec, settings={"method": name})
    assert Page(path.read_text()).text.count(describe_method("masks-only")) == 2


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
        asked=[AskedRound(1, 1, [drawn_case(hostile, name=evil)])],
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


def test_how_good_pseudo_masks_are_is_shown_where_it_was_measured(tmp_path: Path, spec: ModelSpec) -> None:
    path = tmp_path / "report.html"
    for rounds, shown in ((ROUNDS, False), ([*ROUNDS[:2], {**ROUNDS[2], "pseudo_dice": 0.7654}], True)):
        write_report(path, title="t", rounds=rounds, spec=spec, settings={})
        assert ("76.5" in Page(path.read_text()).text) is shown
        assert ("Their Dice" in Page(path.read_text()).text) is shown


def test_figures_are_the_same_each_time_and_show_all_they_are_given() -> None:
    curve = Curve.of_rounds("a", ROUNDS)
    drawn = draw_curves([curve], bounds={"all masks": 0.93})
    assert drawn.rstrip().endswith(b"</svg>")
    assert drawn == draw_curves([curve], bounds={"all masks": 0.93})
    spread = Curve("a", [(masks, value, 0.02) for masks, value, _ in curve.points])
    others = [
        draw_curves([curve]),
        draw_curves([curve], bounds={"all masks": 0.94}),
        draw_curves([curve], published_bounds={"all masks": 0.93}),
        draw_curves([curve], bounds={"all masks": 0.93}, measure="Other"),
        draw_curves([curve], bounds={"all masks": 0.93}, dark=True),
        draw_curves([curve, curve], bounds={"all masks": 0.93}),
        draw_curves([spread], bounds={"all masks": 0.93}),
        draw_curves([replace(curve, published=[(8, 0.6), (12, 0.7)])], bounds={"all masks": 0.93}),
        draw_curves([replace(curve, look=1)], bounds={"all masks": 0.93}),
    ]
    assert len({drawn, *others}) == 10
    row = Dots("a", [0.8, 0.9])
    rows = draw_dots([row])
    assert rows == draw_dots([row])
    more = [
        draw_dots([row, row]),
        draw_dots([replace(row, values=[0.8, 0.91])]),
        draw_dots([replace(row, look=1)]),
        draw_dots([row], measure="Other"),
        draw_dots([row], dark=True),
    ]
    assert len({rows, *more}) == 6


def test_a_png_is_opaque() -> None:
    curve = Curve.of_rounds("a", ROUNDS)
    pictures = [draw_curves([curve], dark=dark, kind="png") for dark in (False, True)]
    assert pictures[0] == draw_curves([curve], kind="png")
    decoded = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in pictures]
    assert [int(np.median(picture)) for picture in decoded if picture is not None] == [255, 0]


def test_a_curve_passes_over_rounds_without_a_dice() -> None:
    gaps = [{"round": 0, "masks_used": 8, "test_dice": None}, *ROUNDS]
    assert Curve.of_rounds("a", gaps) == Curve.of_rounds("a", ROUNDS)


def test_what_a_person_drew_is_shown(tmp_path: Path, predictor: Predictor) -> None:
    table = draw_dataset(tmp_path / "data", seed=0, train_per_class=2, test_per_class=0, size=(64, 96))
    bare = load_dataset(tmp_path / "data" / "images")
    drawn, waiting = (sample.name for sample in bare.samples[:2])
    truth = {sample.name: sample.read()[1] for sample in load_dataset(table).samples}[f"images/{drawn}"]
    assert truth is not None
    write_atomic(tmp_path / "person" / "masks" / Path(drawn).with_suffix(".png"), encode_png(to_grey(truth)))
    config = {"oracle": f"folder:{tmp_path / 'person'}"}
    run = RunResult(tmp_path, config, [{"round": 1, "asked": [drawn, waiting]}, {"round": 2, "asked": []}])
    (asked,) = asked_rounds(predictor, bare, run, most=8)
    assert (asked.number, asked.count) == (1, 2)
    assert [case.name for case in asked.cases] == [drawn, waiting]
    np.testing.assert_array_equal(asked.cases[0].truth, truth)
    assert asked.cases[1].truth is None


def test_a_report_is_made_where_label_studio_is_out_of_reach(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(URL, raising=False)
    bare = load_dataset(
        draw_dataset(tmp_path, seed=0, train_per_class=1, test_per_class=0, size=(64, 96)).parent / "images"
    )
    settings = {"method": "masks-only", "initial": 1, "rounds": 1}
    run = RunResult(
        tmp_path,
        {"oracle": "label-studio:3", "settings": settings},
        [{"round": 1, "asked": [sample.name for sample in bare.samples]}],
    )
    (asked,) = asked_rounds(predictor, bare, run, most=8)
    assert [case.truth for case in asked.cases] == [None, None]
    assert "no drawn masks in the report: " in capsys.readouterr().err


def test_some_images_of_every_round_are_shown(tmp_path: Path, predictor: Predictor) -> None:
    dataset = load_dataset(draw_dataset(tmp_path, seed=0, train_per_class=6, test_per_class=0, size=(64, 96)))
    names = [sample.name for sample in dataset.samples]
    run = RunResult(tmp_path, {}, [{"round": 1, "asked": names[:9]}, {"round": 2, "asked": [*names[9:], "gone"]}])
    first, second = asked_rounds(predictor, dataset, run, most=6)
    assert [case.name for case in first.cases] == names[:9:3]
    assert (first.count, second.count) == (9, 4)
    assert [case.name for case in second.cases] == names[9:]
