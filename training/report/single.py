"""The page of one run: figures, curve, rounds, pictures, and what to do with the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alserve.files import write_atomic
from alserve.modelfile import ModelSpec
from alserve.predictor import load
from training.report.cases import AskedRound, ReportCase, asked_rounds, choose_cases, open_dataset
from training.report.figures import Curve, draw_curves
from training.report.page import render
from training.run.records import read_seconds
from training.run.result import Round, RunResult

MOST_CASES = 12
"""So many test images are shown at most."""

MOST_ASKED = 32
"""So many of the images that the oracle was asked for are shown at most."""


def write_report(
    path: Path,
    *,
    title: str,
    rounds: Sequence[Round],
    spec: ModelSpec,
    settings: Mapping[str, Any],
    cases: Sequence[ReportCase] = (),
    asked: Sequence[AskedRound] = (),
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
        asked: What the oracle was asked for.
        model: The model file, as it is to be named in the commands shown.
    """
    curve = Curve.of_rounds("this run", rounds)
    page = render(
        "run.html.jinja",
        title=title,
        rounds=rounds,
        last=rounds[-1] if rounds else {},
        seconds=sum(record.get("seconds") or 0 for record in rounds) or None,
        curve=[draw_curves([curve], dark=dark) for dark in (False, True)] if curve.points else None,
        pseudo_measured=any(record.get("pseudo_dice") is not None for record in rounds),
        spec=spec,
        settings=settings,
        cases=cases,
        asked=asked,
        model=model,
    )
    write_atomic(path, page.encode(errors="xmlcharrefreplace"))


def report_run(folder: Path, path: Path, *, title: str | None = None) -> None:
    """Write the report of a run: its figures, its model at work on test images, what the oracle was asked for.

    Args:
        folder: The run; at least one of its rounds is finished.
        path: Where the page is to be.
        title: Heading. Default: the run's name.
    """
    run = RunResult.read(folder)
    predictor = load(run.model, device="cpu")
    dataset = open_dataset(run, predictor.spec.classes)
    seconds = read_seconds(folder)
    write_report(
        path,
        title=title or folder.absolute().name,
        rounds=[{**record, "seconds": seconds.get(record["round"])} for record in run.rounds],
        spec=predictor.spec,
        settings=run.settings,
        cases=choose_cases(predictor, dataset, MOST_CASES) if dataset else (),
        asked=asked_rounds(predictor, dataset, run, MOST_ASKED) if dataset else (),
        model=str(run.model),
    )
