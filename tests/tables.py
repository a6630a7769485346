"""Data sets' tables, changed."""

import csv
from collections.abc import Callable
from pathlib import Path

from training.data.synthetic import draw_dataset


def rewrite(table: Path, name: str, change: Callable[[dict[str, str]], dict[str, str]]) -> Path:
    """Write a CSV beside the data set's, with every line changed."""
    lines = [change(line) for line in csv.DictReader(table.open())]
    path = table.with_name(name)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def draw_without_masks(folder: Path) -> Path:
    """Draw a small data set; its table names no mask, but what a person would draw is beside it in masks/."""
    drawn = draw_dataset(folder, seed=1, train_per_class=6, test_per_class=1, size=(96, 128))
    return rewrite(drawn, "bare.csv", lambda line: {name: line[name] for name in ("image", "label", "split")})
