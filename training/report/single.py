"""The page of one run: figures, curve, rounds, pictures, and what to do with the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alserve.measure.dataset import Dataset
from alserve.measure.tables import describe_failures
from alserve.modelfile import ModelSpec
from alserve.places.urls import Location
from alserve.predictor import load
from training.report.cases import AskedRound, ReportCase, asked_rounds, choose_cases, open_dataset
from training.report.figures import Curve, draw_curves
from training.report.measures import classes_of, has_empty, measure_of
from training.report.values import write_filled_report
from training.run.result import Round, RunResult

MOST_CASES = 12
"""Number of test images that are shown at most."""

MOST_CLASSES = 20
"""Number of classes that are named at most: the weakest."""

MOST_ASKED = 32
"""Number of the images that the oracle was asked for that are shown at most."""


def write_report(
    path: Path,
    *,
    title: str,
    rounds: Sequence[Round],
    spec: ModelSpec,
    settings: Mapping[str, Any],
    seconds: Mapping[int, float] | None = None,
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
        seconds: Elapsed time by round, see `training.run.result.RunResult.seconds`.
        cases: Test images to show.
        asked: What the oracle was asked for.
        model: The model file, as it is to be named in the commands shown.
    """
    measure = measure_of(rounds)
    axis = f"{measure.name} (%)"
    curve = Curve.of_rounds("this run", rounds, measure.key)
    last = rounds[-1] if rounds else {}
    classes = classes_of(last)
    failures = describe_failures(classes)
    weakest = sorted(classes.items(), key=lambda item: item[1].foreground_dice or 0.0)[:MOST_CLASSES]
    write_filled_report(
        path,
        "run.html.jinja",
        title=title,
        rounds=rounds,
        last=last,
        measure=measure,
        some_empty=any(has_empty(record) for record in rounds),
        detected=any(record.get("test_found") is not None for record in rounds),
        classes=dict(item for item in classes.items() if item in weakest),
        all_classes=len(classes),
        failures=failures if len(failures) <= MOST_CLASSES else _shortened(failures),
        seconds=seconds or {},
        total=_total(rounds, seconds or {}),
        curve=[draw_curves([curve], measure=axis, dark=dark) for dark in (False, True)] if curve.points else None,
        pseudo_measured=any(record.get("pseudo_dice") is not None for record in rounds),
        spec=spec,
        settings=settings,
        cases=cases,
        asked=asked,
        model=model,
    )


def report_run(
    folder: Path,
    path: Path,
    *,
    title: str | None = None,
    dataset: Dataset | None = None,
    model: Location | None = None,
    threads: int | None = None,
) -> None:
    """Write the report of a run: its figures, its model's answers to test images, what the oracle was asked for.

    Args:
        folder: The run; at least one of its rounds is finished.
        path: Where the page is to be.
        title: Heading. Default: the run's name.
        dataset: The data that it learned from. Default: they are looked for where they were.
        model: The model file, as it is to be named in the commands shown. Default: that in `folder`.
        threads: To predict with. Default: as many as there are cores.
    """
    run = RunResult.read(folder)
    predictor = load(run.model, device="cpu", threads=threads)
    dataset = dataset or open_dataset(run, predictor.spec.classes)
    write_report(
        path,
        title=title or folder.absolute().name,
        rounds=run.rounds,
        spec=predictor.spec,
        settings=run.settings,
        seconds=run.seconds,
        cases=choose_cases(predictor, dataset, MOST_CASES) if dataset else (),
        asked=asked_rounds(predictor, dataset, run, MOST_ASKED) if dataset else (),
        model=str(model or run.model),
    )


def _shortened(lines: Sequence[str]) -> list[str]:
    return [*lines[: MOST_CLASSES - 1], f"And {len(lines) - MOST_CLASSES + 1} more."]


def _total(rounds: Sequence[Round], seconds: Mapping[int, float]) -> float | None:
    """Return the seconds of all rounds and of what precedes the first; None where a round's are not known."""
    numbers = [record["round"] for record in rounds]
    if not numbers or not {*numbers} <= {*seconds}:
        return None
    return seconds.get(0, 0.0) + sum(seconds[number] for number in numbers)
