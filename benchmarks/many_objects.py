"""Measure memory and time of the outputs of one image with 100,000 objects; write benchmarks/results/many_objects.md.

    python benchmarks/many_objects.py

Each line is a process of its own, and so is the one that writes all outputs, one after the other, of the same objects.
The image is a grid of discs, 3,804 x 3,804 pixels; every fifth has a hole.
"""

import json
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
from common import RESULTS, machine, options, peak_memory, table, write_report

from alserve import load
from alserve.modelfile import default_model
from alserve.outputs import OUTPUTS, Case

NAMES = ("mask", "objects", "polygons", "coco", "label-studio")
ACROSS, PITCH = 317, 12
"""Discs in a row, and pixels from one to the next."""


def main() -> None:
    """Start a process for each line, write the table."""
    parser = options(__doc__)
    parser.add_argument("--write", nargs="+", metavar="OUTPUT", help="write these, and print what it took as JSON")
    arguments = parser.parse_args()
    if arguments.write:
        print(json.dumps(measure(arguments.write)))
        return
    rows = []
    for names in [*([name] for name in NAMES), list(NAMES)]:
        command = [sys.executable, __file__, "--write", *names]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        rows.append(
            (", ".join(names), f"{found['bytes'] / 1e6:.1f}", f"{found['seconds']:.1f}", f"{found['peak'] / 1e6:.0f}")
        )
        objects, before = found["objects"], found["before"]
    how = (
        f"`python benchmarks/many_objects.py`, {objects:,} objects in one image of {ACROSS * PITCH:,} x "
        f"{ACROSS * PITCH:,} pixels; {machine()}. {before / 1e6:.0f} MB of the memory are Python, its libraries and "
        "the probabilities, before the first output."
    )
    titles = ("outputs", "MB written", "s", "most memory, MB")
    write_report(RESULTS / "many_objects.md", "100,000 objects in one image", how, table(titles, rows))


def measure(names: list[str]) -> dict[str, float]:
    """Write outputs of one image, and return what it took: bytes, seconds, bytes of memory."""
    side = ACROSS * PITCH
    probability = np.zeros((side, side), np.float32)
    for number in range(ACROSS**2):
        y, x = divmod(number, ACROSS)
        middle = (PITCH * x + PITCH // 2, PITCH * y + PITCH // 2)
        cv2.circle(probability, middle, 2 + number % 3, 0.9, -1)
        if number % 5 == 0:
            probability[middle[::-1]] = 0
    predictor = load(default_model(), threads=1)
    prediction = predictor.predict(np.zeros((64, 64, 3), np.uint8))
    case = Case(
        np.zeros((1, 1, 3), np.uint8),
        replace(prediction, working_probability=probability, height=side, width=side),
    )
    before, start, size = peak_memory(), time.perf_counter(), 0
    for name in names:
        size += len(OUTPUTS[name].encode(case))
    seconds = time.perf_counter() - start
    return {
        "bytes": size,
        "seconds": seconds,
        "peak": peak_memory(),
        "before": before,
        "objects": len(case.objects),
    }


if __name__ == "__main__":
    main()
