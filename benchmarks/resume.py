"""Stop a run over 5,000 images by Ctrl-C and by kill -9, continue it, and compare it with one left alone.

    python benchmarks/resume.py

The findings go to benchmarks/results/resume.md.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from alserve.files import write_atomic
from alserve.folder.manifest import MANIFEST
from alserve.images.codec import encode_jpeg
from alserve.runtime.device import available_cores, describe_cpu
from training.data.tissue import CLASSES, draw_tissue

OUT = Path(__file__).parent / "results" / "resume.md"
SHAPE = (261, 388)
"""Height and width of the images, in pixels."""
DRAWN = 200
"""Different images; each comes again under other names."""
PARTS = (0.25, 0.6)
"""Shares of the run after which it is stopped."""


def main() -> None:
    """Run, stop, continue, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    report = [
        "# A folder run, stopped and continued",
        "",
        f"`python benchmarks/resume.py`: {images} drawn images of {SHAPE[0]} x {SHAPE[1]},",
        f"{available_cores()} cores ({describe_cpu()}).",
        "",
        "| run | exit code | images done after it |",
        "|---|---|---|",
        f"| left alone, {seconds:.0f} s | {codes[0]} | {images} |",
        f"| stopped by Ctrl-C | {codes[1]} | {done[0]} |",
        f"| the same command, stopped by kill -9 | {codes[2]} | {done[1]} |",
        f"| the same command | {codes[3]} | {images} |",
        "",
        f"Files that differ between the first folder and the last: {len(unlike)}; temporary files left: {len(left)}.",
        "",
    ]
    write_atomic(OUT, "\n".join(report).encode())
    print("\n".join(report), *unlike[:5], *left[:5])
    sys.exit(bool(unlike or left))


def draw(folder: Path, images: int) -> None:
    """Draw the images into `folder`/in, as links to a few."""
    for number in range(min(DRAWN, images)):
        picture, _ = draw_tissue(np.random.default_rng([7, number]), CLASSES[number % len(CLASSES)], SHAPE)
        write_atomic(folder / "drawn" / f"{number}.jpg", encode_jpeg(picture))
    (folder / "in").mkdir()
    for number in range(images):
        (folder / "in" / f"{number:05}.jpg").hardlink_to(folder / "drawn" / f"{number % DRAWN}.jpg")


def segment(images: Path, out: Path, stop: signal.Signals | None = None, after: int = 0) -> int:
    """Run the command; send it a signal once so many images stand in its manifest; give its exit code."""
    command = [sys.executable, "-m", "alserve", "segment", images, "--out", out, "--save", "mask,cam"]
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
