"""One HTML page that shows what a run learned: figures, curve, rounds, pictures, and what to do with the model."""

import base64
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from alserve.geometry import resize
from alserve.imageio import write_atomic
from alserve.modelfile import ModelSpec
from alserve.predictor import Prediction, Predictor, load
from alserve.render import PREDICTED, TRUE, panels
from training.dataset import Dataset, Sample, load_dataset
from training.metrics import dice
from training.run import read_config, read_rounds, read_seconds

Pixels = npt.NDArray[np.uint8]
Round = Mapping[str, Any]
"""A line of `rounds.jsonl`: round, masks_used, pseudo_labels, threshold, seconds, test_dice, test_accuracy (0 to 1)."""

DASH = "\N{EN DASH}"
"""Stands for a value that was not measured."""

MOST_TICKS = 12
"""Up to so many budgets are each marked on the axis of a learning curve."""

MOST_CASES = 12
"""So many test images are shown at most."""

MOST_ASKED = 24
"""So many of the images that the oracle was asked for are shown at most."""

PICTURE_SIDE = 480
"""Pictures in the page are at most so many pixels wide or high."""


@dataclass(frozen=True, eq=False)
class ReportCase:
    """An image with what the model said of it, and what is true where that is known."""

    name: str
    image: Pixels
    """uint8 [height, width, 3], RGB."""
    prediction: Prediction
    true_label: str | None = None
    truth: npt.NDArray[np.bool_] | None = None
    """The expert's mask, bool [height, width]."""

    @property
    def dice(self) -> float | None:
        """Dice of predicted and true mask, 0 to 1; None without a true one."""
        return None if self.truth is None else dice(self.prediction.mask(), self.truth)

    @property
    def right(self) -> bool | None:
        """Whether the label is right; None where the true one is not known."""
        return None if self.true_label is None else self.true_label == self.prediction.label

    @property
    def score(self) -> float:
        """Score of the predicted label, 0 to 1."""
        return self.prediction.scores[self.prediction.label]

    def pictures(self) -> dict[str, Pixels]:
        """Give the pictures of the contact sheet, uint8 RGB, by heading."""
        return panels(self.image, self.prediction, self.truth)


def write_report(
    path: Path,
    *,
    title: str,
    rounds: Sequence[Round],
    spec: ModelSpec,
    settings: Mapping[str, Any],
    cases: Sequence[ReportCase] = (),
    asked: Sequence[tuple[str, Pixels]] = (),
    references: Mapping[str, float] | None = None,
    model: str = "model.onnx",
) -> None:
    """Write the report: one file, with nothing to load from elsewhere.

    Args:
        path: Where the page is to be.
        title: Its heading.
        rounds: What `rounds.jsonl` holds; a missing value, or None, is shown as a dash, and the curve is left out
            where no Dice was measured.
        spec: The model's contract, with its provenance.
        settings: What the run was set to, by name.
        cases: Test images for the contact sheet.
        asked: The images that the oracle was asked for, in order: (caption, uint8 [height, width, 3], RGB).
        references: Test Dice, 0 to 1, of what to compare with, by name: lines in the curve.
        model: The model file, as it is to be named in the commands shown.
    """
    curve = None
    if any(record.get("test_dice") is not None for record in rounds):
        curve = [learning_curve({"this run": rounds}, references=references, dark=dark) for dark in (False, True)]
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            title=title,
            rounds=rounds,
            last=rounds[-1] if rounds else {},
            seconds=sum(record.get("seconds") or 0 for record in rounds) or None,
            curve=curve,
            spec=spec,
            settings=settings,
            cases=cases,
            asked=asked,
            colours={"predicted": PREDICTED, "true": TRUE},
            model=model,
        )
    )
    write_atomic(path, page.encode())


def report_run(folder: Path, data: Path, path: Path, *, masks: Path | None = None, title: str | None = None) -> None:
    """Write the report of a run: its figures, its model at work on test images, what the oracle was asked for.

    Args:
        folder: The run.
        data: The data set that it learned from.
        path: Where the page is to be.
        masks: See `training.dataset.load_dataset`.
        title: Heading; the run's name if left out.
    """
    model = folder / "model.onnx"
    predictor = load(model, device="cpu")
    dataset = load_dataset(data, masks)
    rounds, seconds = read_rounds(folder), read_seconds(folder)
    samples = {sample.name: sample for sample in dataset.samples}
    asked = [(name, samples[name].read()[0]) for record in rounds for name in record["asked"][:MOST_ASKED]]
    write_report(
        path,
        title=title or folder.name,
        rounds=[{**record, "seconds": seconds.get(record["round"])} for record in rounds],
        spec=predictor.spec,
        settings=read_config(folder)["settings"],
        cases=choose_cases(predictor, dataset, MOST_CASES),
        asked=asked[:MOST_ASKED],
        model=str(model),
    )


def choose_cases(predictor: Predictor, dataset: Dataset, most: int) -> list[ReportCase]:
    """Choose test images to show, evenly from each class, and predict them; training images where there is no test.

    Args:
        predictor: The model, with the data set's classes.
        dataset: Images with their classes.
        most: How many, at most.
    """
    pool = dataset.split("test") or dataset.split("train")
    each = most // len(dataset.classes) or 1
    chosen: list[Sample] = []
    for label in range(len(dataset.classes)):
        members = [sample for sample in pool if sample.label == label]
        chosen += members[:: max(1, len(members) // each)][:each]
    return [_case(predictor, sample) for sample in chosen[:most]]


def _case(predictor: Predictor, sample: Sample) -> ReportCase:
    image, truth = sample.read()
    (prediction,) = predictor.predict([image])
    return ReportCase(sample.name, image, prediction, predictor.spec.classes[sample.label], truth)


def learning_curve(
    curves: Mapping[str, Sequence[Round]],
    *,
    references: Mapping[str, float] | None = None,
    dark: bool = False,
) -> bytes:
    """Plot test Dice against the masks used.

    Args:
        curves: Rounds by name; those without a measured Dice are passed over. A single curve gets its values
            written on, several get a legend.
        references: Test Dice, 0 to 1, by name: dashed lines.
        dark: Draw for a dark ground.

    Returns:
        An SVG file, with a transparent ground; the same input gives the same bytes.
    """
    ink, faint, colours = (
        ("#dcd9e0", "#3a3d47", ["#c3a3e6", "#7cc4e8", "#f0b96b", "#8fd3a4"])
        if dark
        else ("#3b3744", "#e2dfe6", ["#6d3f93", "#1f78a8", "#c0731a", "#2f8a57"])
    )
    style: dict[Any, Any] = {
        "svg.hashsalt": "alserve",
        "font.size": 10.5,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": faint,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.prop_cycle": f"cycler('color', {colours})",
    }
    with rc_context(style):
        figure = Figure(figsize=(8, 3.7), layout="constrained")
        axes = figure.subplots()
        for name, rounds in curves.items():
            points = [
                (record["masks_used"], 100 * record["test_dice"])
                for record in rounds
                if record.get("test_dice") is not None
            ]
            masks, values = [point[0] for point in points], [point[1] for point in points]
            axes.plot(masks, values, marker="o", markersize=6, linewidth=2.2, label=name, clip_on=False)
            for point in points if len(curves) == 1 else ():
                axes.annotate(f"{point[1]:.1f}", point, (0, 9), textcoords="offset points", ha="center", weight="bold")
        for name, value in (references or {}).items():
            axes.axhline(100 * value, color=ink, linewidth=1, linestyle=(0, (5, 4)), alpha=0.7)
            axes.annotate(
                f"{name} {100 * value:.1f}",
                (0, 100 * value),
                (2, 4),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                fontsize=9.5,
            )
        axes.set(xlabel="Masks used", ylabel="Test Dice (%)")
        axes.margins(x=0.06, y=0.22)
        used = sorted({record["masks_used"] for rounds in curves.values() for record in rounds})
        axes.xaxis.set_major_locator(FixedLocator(used) if len(used) <= MOST_TICKS else MaxNLocator(integer=True))
        axes.grid(axis="y", color=faint, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        if len(curves) > 1:
            axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent, number=_number, duration=_duration, svg=_svg_url, picture=_picture_url, quote=shlex.quote
    )
    return environment


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f}\N{NARROW NO-BREAK SPACE}%"


def _number(value: object) -> str:
    return DASH if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}\N{NARROW NO-BREAK SPACE}min {rest:02}\N{NARROW NO-BREAK SPACE}s" if minutes else f"{rest} s"


def _svg_url(data: bytes) -> Markup:
    return _data_url("image/svg+xml", data)


def _picture_url(pixels: Pixels) -> Markup:
    height, width = pixels.shape[:2]
    scale = min(1.0, PICTURE_SIDE / max(height, width))
    small = resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))
    _, data = cv2.imencode(".webp", small[..., ::-1], (cv2.IMWRITE_WEBP_QUALITY, 86))
    return _data_url("image/webp", bytes(data))


def _data_url(kind: str, data: bytes) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")  # noqa: S704  no markup in base64
