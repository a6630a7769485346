"""Repeat the published GlaS experiment at small budgets; write the table beside the published figures.

    python benchmarks/glas.py path/to/glas/splits.csv --out runs/glas

Stop it whenever you like: the same command continues. The table and the curve go to benchmarks/results/.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from alserve.device import available_cores
from alserve.imageio import write_atomic
from training.procedure import train_run
from training.report.figures import Curve, draw_curves
from training.report.published import published
from training.run import TIMINGS, read_rounds
from training.settings import Settings

RESULTS = Path(__file__).parent / "results"

METHODS: dict[str, dict[str, Any]] = {
    "label-propagation": {"method": "label-propagation", "rounds": 5},
    "full": {"method": "full", "steps": 400},
}


def main() -> None:
    """Train what is not trained yet, then write table and curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="splits.csv of GlaS")
    parser.add_argument("--out", type=Path, default=Path("runs/glas"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--full-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--conditions", default=f"each alone on {available_cores()} cores", help="how the runs ran")
    arguments = parser.parse_args()
    runs: dict[str, Path] = {}
    for method, values in METHODS.items():
        for seed in arguments.full_seeds if method == "full" else arguments.seeds:
            name = f"{method}, seed {seed}"
            runs[name] = arguments.out / f"{method}-{seed}"
            train_run(arguments.data, runs[name], Settings.of("glas", {**values, "seed": seed}))
    write_atomic(RESULTS / "glas.md", table(runs, arguments.conditions).encode())
    names = [name for name in runs if not name.startswith("full")]
    curves = [Curve.of_rounds(name, read_rounds(runs[name]), look) for look, name in enumerate(names)]
    (full,) = [read_rounds(folder)[0]["test_dice"] for name, folder in runs.items() if name == "full, seed 0"]
    bounds = {"all 67 masks, ours": full}, {"all 67 masks, published": published_dice()[67] / 100}
    write_atomic(RESULTS / "glas.svg", draw_curves(curves, bounds=bounds[0], published_bounds=bounds[1]))


def published_dice() -> dict[int, float]:
    """Give the published test Dice, %, by masks: label propagation, and full supervision at 67."""
    (found,) = [found for found in published() if found.name == "GlaS"]
    points = dict(found.points("label-propagation")) | {67: found.points("full")[0][1]}
    return {masks: round(100 * dice, 2) for masks, dice in points.items()}


def table(runs: dict[str, Path], conditions: str) -> str:
    """Give the figures of the runs as a table in Markdown."""
    rows = ["| run | masks | test Dice, % | published, % | test accuracy, % | pseudo-masks | threshold |"]
    rows.append("|---|---|---|---|---|---|---|")
    behind = published_dice()
    for name, folder in runs.items():
        for record in read_rounds(folder):
            masks = record["masks_used"]
            rows.append(
                f"| {name} | {masks} | {100 * record['test_dice']:.1f} | {behind.get(masks, '')} | "
                f"{100 * record['test_accuracy']:.1f} | {record['pseudo_labels']} | {record['threshold']:.2f} |"
            )
    return "\n".join(
        [
            "# GlaS: masks against test Dice",
            "",
            "`python benchmarks/glas.py path/to/glas/splits.csv`; 67 training and 80 test images. Dice is measured",
            "on the exported model, at the images' own size. No validation mask is used: thresholds are",
            "cross-validated inside L.",
            "",
            *rows,
            "",
            f"Seconds, medians over the runs, {conditions}: {times(runs)}.",
            "",
        ]
    )


def times(runs: dict[str, Path]) -> str:
    """Say how long each part of a run took."""
    seconds: dict[str, list[float]] = {}
    for folder in runs.values():
        for line in map(json.loads, (folder / TIMINGS).read_text().splitlines()):
            seconds.setdefault(line["what"], []).append(line["seconds"])
    return ", ".join(f"{what} {statistics.median(taken):.0f}" for what, taken in seconds.items())


if __name__ == "__main__":
    main()
