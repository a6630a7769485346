"""Measure how long a CSV is checked before any image is read; write the table to benchmarks/results/csv_rows.md.

    python benchmarks/csv_rows.py

The files lie in a temporary folder, 10,000 in each of its folders, as links to one file a folder.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from alserve.files import write_atomic
from alserve.measure.dataset import load_dataset

OUT = Path(__file__).parent / "results" / "csv_rows.md"
A_FOLDER = 10_000
"""So many files are in each folder."""
MASK_EVERY = 10
"""One image in so many has a mask."""


def main() -> None:
    """Make the files, load the CSV, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    rows = parser.parse_args().rows
    head = f"# Checking a CSV\n\nPrinted by `python benchmarks/csv_rows.py`, on {os.cpu_count()} cores.\n"
    titles = "| rows | seconds | microseconds a row | peak memory, MB |\n|---|---|---|---|"
    report = "\n".join([head, titles, *measure(rows), ""])
    write_atomic(OUT, report.encode())
    print(report)


def measure(counts: list[int]) -> Iterator[str]:
    """Load a CSV of each number of rows."""
    for rows in sorted(counts):
        with tempfile.TemporaryDirectory() as name:
            table = make(Path(name), rows)
            started = time.perf_counter()
            load_dataset(table)
            seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))
        yield f"| {rows:,} | {seconds:.2f} | {1e6 * seconds / rows:.1f} | {peak:.0f} |"


def make(folder: Path, rows: int) -> Path:
    """Make the files and the CSV that names them."""
    lines = ["image,label,mask,split"]
    for row in range(rows):
        number = row // A_FOLDER
        names = [f"scans/{number}/{row}.jpg", f"masks/{number}/{row}.png"]
        for name in names if row % MASK_EVERY == 0 else names[:1]:
            link(folder / name)
        mask = names[1] if row % MASK_EVERY == 0 else ""
        lines.append(f"{names[0]},class {row % 7},{mask},{'test' if row % 5 == 0 else 'train'}")
    write_atomic(folder / "data.csv", "\n".join(lines).encode())
    return folder / "data.csv"


def link(path: Path) -> None:
    """Make a file that takes no room beyond its name."""
    source = path.parent / "source"
    if not source.exists():
        write_atomic(source, b"")
    os.link(source, path)


if __name__ == "__main__":
    main()
