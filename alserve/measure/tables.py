"""What the command evaluate prints: measures of all images, and class by class."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from alserve.measure.evaluate import ClassFigures, Figures
from alserve.measure.metrics import CONFIDENCE

HALF, QUARTER = 0.5, 0.25
"""A class is named of which less than half is found, or with more than half false alarms or a quarter mistaken."""

Interval = tuple[float, float] | None


def print_figures(title: str, figures: Figures) -> None:
    """Print two tables: all images together, and class by class.

    Classes in which it fails are said in words below them. Where images are empty, the Dice of those with
    foreground leads, with what is found and how many false alarms there are; the mean over all images follows, with
    what an empty mask has. Where none is empty, both means are one.

    Args:
        title: Heading.
        figures: What `measure` gave.
    """
    whole = Table("", "value", "", title=title, title_justify="left")
    for name, value, note in _rows(figures):
        whole.add_row(name, _number(value), note)
    console = Console()
    console.print(whole)
    console.print(_by_class(figures))
    for line in describe_failures(figures.classes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _rows(figures: Figures) -> list[tuple[str, float | None, str]]:
    found = (
        "found",
        figures.found,
        _notes(figures.found_interval, f"{_of(figures.found, figures.with_foreground)} with foreground"),
    )
    if figures.empty:
        rows = [
            (
                "Dice of images with foreground",
                figures.foreground_dice,
                _notes(figures.foreground_dice_interval, "an empty mask has 0"),
            ),
            ("  of a mask of everything", figures.foreground_dice_of_everything, "what a model has to beat"),
            found,
            (
                "false alarms",
                figures.false_alarms,
                _notes(
                    figures.false_alarms_interval,
                    f"{_of(figures.false_alarms, figures.empty)} without foreground",
                ),
            ),
            ("area under ROC, by image", figures.auroc, "with foreground or without; 0.5 tells nothing"),
            ("Dice of all images", figures.dice, _notes(figures.dice_interval, "rewards silence: empty on empty is 1")),
            ("  of an empty mask", figures.dice_of_nothing, "what a model has to beat"),
            ("  of a mask of everything", figures.dice_of_everything, ""),
        ]
    else:
        rows = [
            ("Dice", figures.dice, _notes(figures.dice_interval)),
            ("  of a mask of everything", figures.dice_of_everything, "what a model has to beat"),
            found,
        ]
    return [
        *rows,
        ("IoU" if not figures.empty else "IoU of all images", figures.iou, _notes(figures.iou_interval)),
        ("accuracy", figures.accuracy, _notes(figures.accuracy_interval)),
        ("PxAP of the mask", figures.pxap_mask, "over all pixels together"),
        ("PxAP of the CAM", figures.pxap_cam, "of the predicted class"),
        ("calibration error of the mask", figures.ece_mask, "0 is best"),
        ("calibration error of the scores", figures.ece_scores, "0 is best"),
    ]


def _by_class(figures: Figures) -> Table:
    """Tabulate the classes; false alarms have a column only where images are empty."""
    title = "Dice of images with foreground, by class" if figures.empty else "by class"
    table = Table("class", "images", "Dice", "95 %", "found", title=title, title_justify="left")
    for heading in (["false alarms"] if figures.empty else ["IoU"]) + ["accuracy"]:
        table.add_column(heading)
    for name, one in figures.classes.items():
        interval = one.foreground_dice_interval
        table.add_row(
            name,
            str(one.images),
            _number(one.foreground_dice),
            f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "-",
            _of(one.found, one.with_foreground),
            _of(one.false_alarms, one.empty) if figures.empty else _number(one.iou),
            _number(one.accuracy),
        )
    return table


def describe_failures(classes: Mapping[str, ClassFigures]) -> list[str]:
    """Say in words in which classes a model finds less than half, gives many false alarms, or mistakes the class.

    Many are more than half of the empty images; the class is mistaken in more than a quarter of the images.

    Args:
        classes: Their measures, by name.

    Returns:
        One sentence each, those of which nothing is found first.
    """
    none, some, alarms, mistaken = [], [], [], []
    for name, one in classes.items():
        found = round((one.found or 0.0) * one.with_foreground)
        if one.with_foreground and not found:
            none.append(f"{name}: none of {one.with_foreground} images with foreground is found.")
        elif one.with_foreground and found < HALF * one.with_foreground:
            some.append(f"{name}: {found} of {one.with_foreground} images with foreground are found.")
        if (one.false_alarms or 0.0) > HALF:
            alarms.append(f"{name}: false alarms on {_of(one.false_alarms, one.empty)} empty images.")
        if one.accuracy is not None and 1 - one.accuracy > QUARTER:
            mistaken.append(f"{name}: {_of(1 - one.accuracy, one.images)} images are taken for another class.")
    return [*none, *some, *alarms, *mistaken]


def _notes(interval: Interval, *notes: str) -> str:
    spread = f"{CONFIDENCE:.0%} interval {_interval(interval)}" if interval else ""
    return "; ".join(note for note in (spread, *notes) if note)


def _interval(interval: Interval) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""


def _of(share: float | None, total: int) -> str:
    """Return a share as a count, such as "3 of 46"."""
    return "-" if share is None else f"{round(share * total)} of {total}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
