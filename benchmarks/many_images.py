"""Measure time and memory of a short round on many images; write the table to benchmarks/results/many_images.md.

    python benchmarks/many_images.py 2000 10000 100000

Draws 200 JPEG files of 256 x 256 pixels in two classes and links them to as many names as there are to be images, then
runs `alserve train` for one round and watches the memory of all its processes. 100,000 images take about 30 GB in the
temporary folder (`TMPDIR`).
"""

import json
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import psutil
from common import ALSERVE, RESULTS, machine, options, table, write_report

from alserve.files import write_atomic
from alserve.images.codec import encode_jpeg, encode_png, to_grey
from alserve.terminal import say

DRAWINGS = 200
"""Different images, each under many names."""
SIDE = 256
TESTS = 20
SETTINGS = {"classifier_steps": 5, "steps": 5, "initial": 4, "rounds": 1, "passes": 1, "k": 0.01, "pseudo_flips": "no"}
"""A round of few steps, masks and pseudo-masks, of some per cent of the images."""
INTERVAL = 0.5
"""Seconds between two looks at the memory."""
GOAL = 4e9
"""Bytes."""


def main() -> None:
    """Draw, train, write the table."""
    parser = options(__doc__)
    parser.add_argument("numbers", type=int, nargs="*", default=[2000, 10_000], help="numbers of training images")
    parser.add_argument("--out", type=Path, default=RESULTS / "many_images.md")
    arguments = parser.parse_args()
    numbers = sorted(arguments.numbers)
    found = {}
    with TemporaryDirectory() as name:
        drawings = list(draw(Path(name)))
        for number in numbers:
            with TemporaryDirectory() as folder:
                found[number] = measure(link(drawings, Path(folder), number), Path(folder) / "run")
    parts = dict.fromkeys(part for one in found.values() for part in one)
    rows = [[part, *(f"{one.get(part, 0):,.1f}" for one in found.values())] for part in parts]
    settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
    how = (
        f"`python benchmarks/many_images.py {' '.join(map(str, numbers))}`; drawn JPEG files of {SIDE} x {SIDE} "
        f"pixels, {DRAWINGS} different ones; {settings}; {machine()}. Memory is the largest sum over the run's "
        f"processes of what each has for itself (USS), and of what is resident, shared pages counted in each "
        f"(RSS); the goal for 100,000 images is {GOAL / 1e9:.0f} GB."
    )
    write_report(arguments.out, "Many images", how, table(("", *(f"{number:,} images" for number in numbers)), rows))


def draw(folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """Draw the different images; yield class, image and mask of each."""
    import numpy as np

    from training.data.tissue import CLASSES, draw_tissue

    for number in range(DRAWINGS):
        label = CLASSES[number % len(CLASSES)]
        image, mask = draw_tissue(np.random.default_rng([7, number]), label, (SIDE, SIDE))
        paths = folder / f"{number}.jpg", folder / f"{number}.png"
        write_atomic(paths[0], encode_jpeg(image))
        write_atomic(paths[1], encode_png(to_grey(mask)))
        yield label, *paths


def link(drawings: list[tuple[str, Path, Path]], folder: Path, number: int) -> Path:
    """Link the drawings to the names of so many training images and some test images; return the CSV."""
    lines = ["image,mask,label,split"]
    for split, count in (("train", number), ("test", TESTS)):
        (folder / split).mkdir()
        for index in range(count):
            label, *files = drawings[index % len(drawings)]
            names = [f"{split}/{index:06}{file.suffix}" for file in files]
            for file, name in zip(files, names, strict=True):
                (folder / name).hardlink_to(file)
            lines.append(f"{','.join(names)},{label},{split}")
    path = folder / "data.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def measure(data: Path, out: Path) -> dict[str, float]:
    """Train one round; return the seconds of every part, the most memory in GB, and what the round found."""
    given = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    began, before, done = time.perf_counter(), used(resource.RUSAGE_CHILDREN), Event()
    most = {"USS": 0, "RSS": 0}
    with subprocess.Popen([*ALSERVE, "train", data, "--out", out, "--device", "cpu", *given]) as process:
        watcher = Thread(target=watch, args=(psutil.Process(process.pid), most, done))
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
    whole = time.perf_counter() - began
    computing = used(resource.RUSAGE_CHILDREN) - before
    if code:
        raise SystemExit(f"training ended with {code}")
    lines = [json.loads(line) for line in (out / "timings.jsonl").read_text().splitlines()]
    (record,) = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    say(f"{whole:.0f} s, {most}")
    return {
        **{f"{line['what']}, s": line["seconds"] for line in lines},
        "**the whole command, s**": whole,
        "CPU time of all its processes, s": computing,
        "pseudo-masks made": record["pseudo_labels"],
        "files left in the run's folder, GB": sum(path.stat().st_size for path in out.rglob("*")) / 1e9,
        "**most memory, USS, GB**": most["USS"] / 1e9,
        "most memory, RSS, GB": most["RSS"] / 1e9,
    }


def used(whose: int) -> float:
    """Return the CPU time of processes, in seconds."""
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime


def watch(root: psutil.Process, most: dict[str, int], done: Event) -> None:
    """Note the most memory that a process and its children have together, until it is done."""
    while not done.wait(INTERVAL):
        now = {"USS": 0, "RSS": 0}
        with suppress(psutil.NoSuchProcess):
            for process in [root, *root.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    memory = process.memory_full_info()
                    now = {"USS": now["USS"] + memory.uss, "RSS": now["RSS"] + memory.rss}
        for name, value in now.items():
            most[name] = max(most[name], value)


if __name__ == "__main__":
    main()
