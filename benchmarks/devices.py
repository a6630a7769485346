"""Speed of training by one process and by two, side by side on this machine, and how far apart their weights are.

Each setup trains the same network on the same drawn images, `--repeats` times in turn, and the median time counts. The
time of the first steps, in which processes are started, is left out.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import RESULTS, machine, options, table, write_report

SETUPS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes of 1 thread": (2, 1)}
"""Processes, and threads of each."""

SIDE = 256


def main() -> None:
    """Measure all setups in turn, each by a command of its own: threads are set as a process begins."""
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=20, help="steps of a measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of every setup")
    parser.add_argument("--measure", metavar="FILE", help="measure one setup and save its weights: used by itself")
    parser.add_argument("--processes", type=int, default=1, help="of that setup")
    given = parser.parse_args()
    if given.measure:
        print(measure(given.processes, given.steps, Path(given.measure)))
        return
    seconds: dict[str, list[float]] = {name: [] for name in SETUPS}
    with TemporaryDirectory() as folder:
        weights = [Path(folder) / f"{number}.npy" for number in range(len(SETUPS))]
        for _ in range(given.repeats):
            for (name, (processes, threads)), file in zip(SETUPS.items(), weights, strict=True):
                command = [sys.executable, __file__, "--measure", str(file), "--processes", str(processes)]
                environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
                shown = subprocess.check_output([*command, "--steps", str(given.steps)], env=environment, text=True)
                seconds[name].append(float(shown) / given.steps)
        apart = [float(np.linalg.norm(np.load(file) - np.load(weights[0]))) for file in weights]
        size = float(np.linalg.norm(np.load(weights[0])))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    slowest = next(iter(medians.values()))
    rows = [
        [
            name,
            f"{medians[name]:.2f}",
            f"{min(each):.2f} to {max(each):.2f}",
            f"{slowest / medians[name]:.2f}",
            f"{off / size:.1e}",
        ]
        for (name, each), off in zip(seconds.items(), apart, strict=True)
    ]
    write_report(
        RESULTS / "devices.md",
        "Devices",
        f"`python benchmarks/devices.py --steps {given.steps} --repeats {given.repeats}`, on {machine()}; load average "
        f"{os.getloadavg()[1]:.0f} in the last minutes: more processes then get a larger share.",
        "Segmentation phase by consistency with the default settings: batch 6 and class_batch 4, "
        f"encoder tf_efficientnet_lite0, working size {SIDE}; seconds a step, median and range.",
        table(["", "s a step", "range", "speed", "weights apart"], rows),
        f"Weights apart: norm of the difference to the first setup's after {given.steps} steps, over their norm.",
    )


def measure(processes: int, steps: int, file: Path) -> float:
    """Train, and return the seconds of all steps, without those of an earlier, short training."""
    from training.data.examples import Example
    from training.data.tissue import CLASSES, draw_tissue
    from training.distributed.start import training_group
    from training.model.trainer import Lesson, Trainer
    from training.run.state import weights_of
    from training.settings import Settings

    examples = []
    for number in range(24):
        label = number % len(CLASSES)
        image, mask = draw_tissue(np.random.default_rng([7, number]), CLASSES[label], (SIDE, SIDE))
        examples.append(Example(image, label, mask))
    lesson = Lesson(examples[:8], (), examples)
    with training_group(processes, 1, "cpu") as group:

        def train(count: int) -> np.ndarray:
            trainer = Trainer(Settings(steps=count), "cpu", group)
            net = trainer.new_network(len(CLASSES), 0)
            trainer.train_segmenter(net, lesson, 1, "steps")
            return np.concatenate([each.float().numpy().ravel() for each in weights_of(net).values()])

        train(2)
        begun = time.monotonic()
        weights = train(steps)
        seconds = time.monotonic() - begun
    np.save(file, weights)
    return seconds


if __name__ == "__main__":
    main()
