"""Stop a run over 5,000 images by Ctrl-C and by kill -9, continue it, and compare it with one left alone.

    python benchmarks/resume.py

The findings go to benchmarks/results/resume.md.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from common import ALSERVE, RESULTS, draw_jpeg, machine, options, table, write_report

from alserve.folder.manifest import MANIFEST

SHAPE = (261, 388)
"""Height and width of the images, in pixels."""
DRAWN = 200
"""Number of different images; each is repeated under other names."""
PARTS = (0.25, 0.6)
"""Shares of the run after which it is stopped."""


def main() -> None:
    """Run, stop, continue, compare, write."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=5000)
    images: int = parser.parse_args().images
    with TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, images)
        whole, stopped = folder / "whole", folder / "stopped"
        started = time.monotonic()
        codes = [segment(folder / "in", whole)]
        seconds = time.monotonic() - started
        stops = [(signal.SIGINT, PARTS[0]), (signal.SIGKILL, PARTS[1])]
        done = []
        for sent, part in stops:
            codes.append(segment(folder / "in", stopped, stop=sent, after=int(part * images)))
            done.append(len((stopped / MANIFEST).read_text().splitlines()))
        codes.append(segment(folder / "in", stopped))
        unlike = differences(whole, stopped)
        left = [path.name for path in stopped.rglob(".*")]
    how = f"`python benchmarks/resume.py`: {images} drawn images of {SHAPE[0]} x {SHAPE[1]}; {machine()}."
    runs = (
        f"left alone, {seconds:.0f} s",
        "stopped by Ctrl-C",
        "the same command, stopped by kill -9",
        "the same command",
    )
    counts = (images, *done, images)
    rows = [(run, str(code), str(count)) for run, code, count in zip(runs, codes, counts, strict=True)]
    found = (
        f"Files that differ between the first folder and the last: {len(unlike)}; temporary files left: {len(left)}."
    )
    titles = ("run", "exit code", "images done after it")
    write_report(RESULTS / "resume.md", "A folder run, stopped and continued", how, table(titles, rows), found)
    print(*unlike[:5], *left[:5])
    sys.exit(bool(unlike or left))


def draw(folder: Path, images: int) -> None:
    """Draw the images into `folder`/in, as links to a few."""
    for number in range(min(DRAWN, images)):
        draw_jpeg(folder / "drawn" / f"{number}.jpg", number, SHAPE)
    (folder / "in").mkdir()
    for number in range(images):
        (folder / "in" / f"{number:05}.jpg").hardlink_to(folder / "drawn" / f"{number % DRAWN}.jpg")


def segment(images: Path, out: Path, stop: signal.Signals | None = None, after: int = 0) -> int:
    """Run the command; send it a signal once its manifest has `after` lines; return its exit code."""
    command = [*ALSERVE, "segment", images, "--out", out, "--save", "mask,cam"]
    process = subprocess.Popen([*command, "--device", "cpu"], stderr=subprocess.DEVNULL)
    manifest = out / MANIFEST
    while stop and process.poll() is None and lines(manifest) < after:
        time.sleep(0.2)
    if stop:
        process.send_signal(stop)
    return process.wait()


def lines(path: Path) -> int:
    """Count the lines of a file; none where there is no file."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def differences(first: Path, second: Path) -> list[str]:
    """Name the files that two folders do not share, byte for byte."""
    names = sorted({str(path.relative_to(out)) for out in (first, second) for path in out.rglob("*") if path.is_file()})
    return [name for name in names if read(first / name) != read(second / name)]


def read(path: Path) -> bytes | None:
    """Read a file; None where there is none."""
    return path.read_bytes() if path.is_file() else None


if __name__ == "__main__":
    main()
