"""Decode mutated images of every kind in decoder processes; measure the time and memory that each one takes.

    python benchmarks/fuzz_decoders.py [--mutations 3000] [--seed 0]

The table goes to benchmarks/results/fuzz.md. What fails the goal is kept beside it, in fuzz/, to look at.
"""

import io
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from common import HERE, RESULTS, machine, options, table, write_report
from PIL import Image

from alserve.errors import ImageError, ImageLimitError, ImageTimeoutError
from alserve.files import write_atomic
from alserve.images.decoders import Decoders

sys.path.insert(0, str(HERE.parent / "tests"))

from bombs import claimed_pixels, mutated
from pictures import picture

SECONDS = 20
GOAL_SECONDS, GOAL_BYTES = 2.0, 3e8
"""The most that a mutated file may take: time, and memory beside what a picture of its size needs."""

BYTES_PER_PIXEL = 12
"""Memory that a picture needs while it is decoded: a progressive JPEG."""

KINDS: dict[str, list[dict[str, object]]] = {
    "JPEG": [{}, {"progressive": True}, {"subsampling": 0, "restart_marker_rows": 1}],
    "PNG": [{}, {"compress_level": 0}],
    "TIFF": [{"compression": name} for name in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")],
    "BMP": [{}],
    "WEBP": [{}, {"lossless": True}],
    "GIF": [{}],
    "PPM": [{}],
}
"""Every kind, and the ways in which it is written."""


class Found(NamedTuple):
    """What became of the mutations of one kind."""

    kind: str
    outcomes: Counter[str]
    seconds: float
    """The longest."""
    memory: float
    """The most bytes beyond those before and those that its picture needs."""


def main() -> None:
    """Try every kind, write the table; exit with 1 where a goal was missed."""
    parser = options(__doc__)
    parser.add_argument("--mutations", type=int, default=3000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "fuzz.md")
    arguments = parser.parse_args()
    found = []
    for kind, ways in KINDS.items():
        found.append(
            fuzz(kind, [encode(kind, way) for way in ways], arguments.mutations, arguments.seed, arguments.out)
        )
        print(*row(found[-1]), sep="; ", flush=True)
    titles = ("kind", "outcomes", "longest", "most memory beyond")
    write_report(arguments.out, "Mutated images", conditions(arguments.mutations), table(titles, map(row, found)))
    sys.exit(any(one.seconds > GOAL_SECONDS or one.memory > GOAL_BYTES for one in found))


def encode(kind: str, options: dict[str, object]) -> bytes:
    """Return a small drawn picture in one of the ways."""
    buffer = io.BytesIO()
    Image.fromarray(picture(48, 64)).save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def fuzz(kind: str, originals: Sequence[bytes], mutations: int, seed: int, out: Path) -> Found:
    """Decode mutations of some files, one after the other, and watch the processes."""
    random = np.random.default_rng(seed)
    outcomes: Counter[str] = Counter()
    longest = most = 0.0
    with Decoders(1, SECONDS) as decoders:
        for number in range(mutations):
            data = mutated(originals[number % len(originals)], random)
            before = peaks()
            start = time.perf_counter()
            outcome, pixels = attempt(decoders, data)
            seconds = time.perf_counter() - start
            after = peaks()
            memory = max((after[pid] - before[pid] for pid in before.keys() & after.keys()), default=0)
            memory -= min(memory, BYTES_PER_PIXEL * pixels)
            outcomes[outcome] += 1
            longest, most = max(longest, seconds), max(most, memory)
            if seconds > GOAL_SECONDS or memory > GOAL_BYTES:
                write_atomic(out.parent / "fuzz" / f"{kind}-{seed}-{number}", data)
    return Found(kind, outcomes, longest, most)


def attempt(decoders: Decoders, data: bytes) -> tuple[str, int]:
    """Return what became of an image, and the pixels that it claims, where that many are allowed."""
    pixels = claimed_pixels(data)
    try:
        decoders.decode(data)
    except ImageTimeoutError:
        return "too late", pixels
    except ImageLimitError:
        return "too much memory, or a crash", pixels
    except ImageError:
        return "refused", pixels
    return "decoded", pixels


def peaks() -> dict[int, int]:
    """Return the most memory that each decoder process has had, in bytes, by its id."""
    found = {}
    for child in psutil.Process().children():
        status = Path(f"/proc/{child.pid}/status").read_text()
        found[child.pid] = 1024 * next(
            (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0
        )
    return found


def row(found: Found) -> tuple[str, ...]:
    """Return one row of the table."""
    outcomes = ", ".join(f"{name}: {number:,}" for name, number in sorted(found.outcomes.items()))
    return found.kind, outcomes, f"{found.seconds:.2f} s", f"{found.memory / 1e6:.0f} MB"


def conditions(mutations: int) -> str:
    """Describe how the figures were measured, and the goal."""
    return (
        f"`python benchmarks/fuzz_decoders.py`: {mutations:,} mutations of pictures of 64 x 48 pixels of each kind, "
        f"decoded in a process with limits of time ({SECONDS} s) and memory; {machine()}. "
        f"Goal: none over {GOAL_SECONDS:g} s, none over {GOAL_BYTES / 1e6:.0f} MB beyond what its picture needs "
        f"({BYTES_PER_PIXEL} bytes a pixel)."
    )


if __name__ == "__main__":
    main()
