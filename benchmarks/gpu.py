"""Measure a GPU against the CPU beside it: the network, new shapes, a folder, a training.

    python benchmarks/gpu.py

Writes benchmarks/results/gpu.md after each part, so that one that is stopped leaves what it has. The model is the one
that comes with the package, at a working short side of 256 pixels, the images are drawn, of GlaS's size. Every pair is
measured in turn, and the tables give medians.
"""

import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import ALSERVE, GLAS_SHAPE, RESULTS, draw_jpeg, machine, options, table, timed, write_report

from alserve.arrays import UInt8
from alserve.geometry import working_shape
from alserve.modelfile import default_model, read_metadata
from alserve.runtime.engine import Engine
from training.data.examples import Example
from training.data.tissue import CLASSES, draw_tissue
from training.export.to_onnx import stamp
from training.model.network import JointNet
from training.model.trainer import Lesson, Trainer
from training.settings import Settings

SHORT_SIDE = 256
CPU, GPU = "cpu", "cuda"
BATCHES = (1, 4, 16, 64)
WIDTHS = range(SHORT_SIDE, SHORT_SIDE + 6 * 32, 32)
"""Of the images of several shapes."""
DRAWN = 50
"""Different images of the folder; the others are copies."""

Row = tuple[str, ...]


def main() -> None:
    """Measure all, write the table."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=2000, help="of the folder")
    parser.add_argument("--steps", type=int, default=60, help="of a training")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images, steps, rounds = arguments.images, arguments.steps, arguments.rounds
    height, width = working_shape(*GLAS_SHAPE, SHORT_SIDE)
    command = f"`python benchmarks/gpu.py --images {images} --steps {steps} --rounds {rounds}`"
    machines = f"{torch.cuda.get_device_name()} beside {machine()}; torch {torch.__version__}"
    parts = [f"{command}: {machines}. Medians, in turn."]

    def add(what: str, titles: Row, rows: list[Row]) -> None:
        parts.extend((what, table(titles, rows)))
        write_report(RESULTS / "gpu.md", "On a GPU", *parts)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.onnx"
        packaged = default_model()
        spec = read_metadata(packaged.read_bytes(), str(packaged)).spec
        stamp(model, spec.model_copy(update={"short_side": SHORT_SIDE}), packaged)
        add(
            f"The network of the packaged model alone, images of {height} x {width} in memory:",
            ("images a call", "CPU, images/s", "GPU, images/s", "ratio", "GPU, ms a call"),
            network_rows(model, (height, width), rounds),
        )
        add(
            f"Images of {len(WIDTHS)} shapes by turns on the GPU, one a call, means:",
            ("", "each for the first time, ms", "again, ms"),
            shape_rows(model),
        )
        add(
            f"`alserve segment`, {images} drawn JPEGs of 522 x 775, mask and CAM written at full size:",
            ("", "images/s once started", "whole command, s"),
            folder_rows(model, folder, images, rounds),
        )
    add(
        "Training by the defaults, without the start:",
        ("", "CPU, steps/s", "GPU, steps/s", "ratio"),
        training_rows(steps, rounds),
    )


def medians(rounds: int, measure: Callable[[str], float]) -> tuple[float, float]:
    """Measure on CPU and GPU in turn, some rounds; return the median of each."""
    found = [(measure(CPU), measure(GPU)) for _ in range(rounds)]
    cpu, gpu = (statistics.median(values) for values in zip(*found, strict=True))
    return cpu, gpu


def rates(what: str, cpu: float, gpu: float, digits: int = 0) -> Row:
    """Return a row of two rates and their ratio."""
    return what, f"{cpu:.{digits}f}", f"{gpu:.{digits}f}", f"{gpu / cpu:.1f}"


def network_rows(model: Path, shape: tuple[int, int], rounds: int) -> list[Row]:
    """Return the rows of the network alone, by the size of the batch."""
    engines = {device: Engine(model, device=device) for device in (CPU, GPU)}

    def seconds(images: UInt8, device: str) -> float:
        engine, calls = engines[device], max(2, (256 if device == GPU else 32) // len(images))
        engine.batch_size = len(images)  # nothing is filled up
        engine.run(images)
        return timed(lambda: [engine.run(images) for _ in range(calls)]) / calls

    rows = []
    for batch in BATCHES:
        images = np.random.default_rng(0).integers(0, 256, (batch, *shape, 3), np.uint8)
        cpu, gpu = medians(rounds, partial(seconds, images))
        rows.append((*rates(str(batch), batch / cpu, batch / gpu), f"{1000 * gpu:.1f}"))
    return rows


def shape_rows(model: Path) -> list[Row]:
    """Return the rows of images of several shapes: the model file's network, and the one that is trained."""
    images = [np.random.default_rng(0).integers(0, 256, (SHORT_SIDE, width, 3), np.uint8) for width in WIDTHS]
    engine, trainer = Engine(model, device=GPU), Trainer(Settings(), GPU)
    net = trainer.new_network(2, seed=0)
    ways: dict[str, Callable[[], object]] = {
        "model file": lambda: [engine.run(image[None]) for image in images],
        "in training, to predict": lambda: list(trainer.predict(net, images)),
    }
    rows = []
    for name, way in ways.items():
        first, again = (f"{1000 * timed(way) / len(images):.1f}" for _ in range(2))
        rows.append((name, first, again))
    return rows


def folder_rows(model: Path, folder: Path, count: int, rounds: int) -> list[Row]:
    """Return the rows of a folder."""
    images = folder / "images"
    for index in range(count):
        path = images / f"{index:05}.jpg"
        if index < DRAWN:
            draw_jpeg(path, index)
        else:
            shutil.copyfile(images / f"{index % DRAWN:05}.jpg", path)
    said: dict[str, list[float]] = {CPU: [], GPU: []}

    def whole(device: str) -> float:
        out = folder / "out"
        command = [
            *ALSERVE,
            "segment",
            images,
            "--out",
            out,
            "--model",
            model,
            "--device",
            device,
            "--save",
            "mask,cam",
        ]
        start = time.perf_counter()
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
        taken = time.perf_counter() - start
        said[device].append(float(re.findall(r"([\d.]+) images/s", done.stdout)[-1]))
        shutil.rmtree(out)
        return taken

    taken = dict(zip((CPU, GPU), medians(rounds, whole), strict=True))
    return [(device, f"{statistics.median(said[device]):.0f}", f"{taken[device]:.1f}") for device in (CPU, GPU)]


def training_rows(steps: int, rounds: int) -> list[Row]:
    """Return the rows of the two phases."""
    images = [draw_tissue(np.random.default_rng([7, n]), CLASSES[n % 2], (256, 384)) for n in range(16)]
    examples = [Example(image, number % 2, mask) for number, (image, mask) in enumerate(images)]
    unlabelled = [Example(item.image, item.label, least=1.0) for item in examples]

    def classifier(trainer: Trainer, net: JointNet) -> float:
        return timed(trainer.train_classifier, net, examples, 1)

    def masks(trainer: Trainer, net: JointNet) -> float:
        return timed(trainer.train_segmenter, net, Lesson(examples[:8], everything=unlabelled), 2, "masks")

    def seconds(train: Callable[[Trainer, JointNet], float], device: str) -> float:
        taken = []
        for number in (1, 1 + steps):
            trainer = Trainer(Settings(steps=number, classifier_steps=number, classifier_cycles=1), device)
            taken.append(train(trainer, trainer.new_network(2, seed=0)))
        return taken[1] - taken[0]

    rows = []
    for name, train in (("classifier", classifier), ("masks, with consistency", masks)):
        cpu, gpu = medians(rounds, partial(seconds, train))
        rows.append(rates(name, steps / cpu, steps / gpu, 1))
    return rows


if __name__ == "__main__":
    main()
