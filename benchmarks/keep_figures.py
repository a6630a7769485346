"""Keep the figures of an experiment's finished runs, without models and without paths of this machine.

    python benchmarks/keep_figures.py runs/first-masks benchmarks/runs/first-masks-tiles

`alserve report` reads them, and `alserve experiment` goes on from a copy of them wherever the same data are.
"""

import json
from pathlib import Path

from common import options

from alserve.files import write_atomic
from training.run.result import RunResult

KEPT = ("rounds.jsonl", "timings.jsonl")


def main() -> None:
    """Copy the figures of every run that is finished."""
    parser = options(__doc__)
    parser.add_argument("experiment", type=Path, help="folder of the runs")
    parser.add_argument("out", type=Path, help="folder to keep their figures in")
    given = parser.parse_args()
    runs = [RunResult.read(path.parent) for path in sorted(given.experiment.glob("*/config.json"))]
    for run in runs:
        if run.finished:
            keep(run, given.out / run.folder.name)


def keep(run: RunResult, out: Path) -> None:
    """Copy a run's figures; of its data set the name alone."""
    config = {**run.config, "source": Path(run.config["source"]).name, "masks": None}
    write_atomic(out / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    for name in KEPT:
        write_atomic(out / name, (run.folder / name).read_bytes())


if __name__ == "__main__":
    main()
