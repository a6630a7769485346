"""Measure how long a CSV is checked before any image is read; write the table to benchmarks/results/csv_rows.md.

    python benchmarks/csv_rows.py

The files lie in a temporary folder, 10,000 in each of its folders, as links to one file a folder.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import RESULTS, machine, options, peak_memory, table, timed, write_report

from alserve.files import write_atomic
from alserve.measure.dataset import load_dataset

FILES_PER_FOLDER = 10_000
MASK_EVERY = 10
"""Every tenth image has a mask."""


def main() -> None:
    """Make the files, load the CSV, write the table."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    rows = parser.parse_args().rows
    titles = ("rows", "seconds", "microseconds a row", "peak memory, MB")
    how = f"`python benchmarks/csv_rows.py`; {machine()}."
    write_report(RESULTS / "csv_rows.md", "Checking a CSV", how, table(titles, measure(rows)))


def measure(counts: list[int]) -> Iterator[tuple[str, ...]]:
    """Load a CSV of each number of rows; yield the rows of the table."""
    for rows in sorted(counts):
        with tempfile.TemporaryDirectory() as name:
            seconds = timed(load_dataset, make(Path(name), rows))
        yield f"{rows:,}", f"{seconds:.2f}", f"{1e6 * seconds / rows:.1f}", f"{peak_memory() / 1e6:.0f}"


def make(folder: Path, rows: int) -> Path:
    """Make the files and the CSV that names them."""
    lines = ["image,label,mask,split"]
    for row in range(rows):
        number = row // FILES_PER_FOLDER
        names = [f"scans/{number}/{row}.jpg", f"masks/{number}/{row}.png"]
        for name in names if row % MASK_EVERY == 0 else names[:1]:
            link(folder / name)
        mask = names[1] if row % MASK_EVERY == 0 else ""
        lines.append(f"{names[0]},class {row % 7},{mask},{'test' if row % 5 == 0 else 'train'}")
    write_atomic(folder / "data.csv", "\n".join(lines).encode())
    return folder / "data.csv"


def link(path: Path) -> None:
    """Make a file that takes no space beyond its name."""
    source = path.parent / "source"
    if not source.exists():
        write_atomic(source, b"")
    os.link(source, path)


if __name__ == "__main__":
    main()
