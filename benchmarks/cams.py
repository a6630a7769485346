"""Measure what the classifier learns before any mask; write the table to benchmarks/results/cams-NAME.md.

    python benchmarks/cams.py tiles.csv --variant cam_stride=32 --variant cam_stride=16

For every variant of the settings and every seed the classifier is trained as a run trains it. Measured are its accuracy
on the test images, as they are served and squeezed to the squares in which it learned, and the pointing game (Zhang et
al., Excitation Backprop, ECCV 2016): the share of the images with foreground in which the CAM of the true class is
highest inside the mask.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
from common import RESULTS, machine, options, table, write_report

from alserve.arrays import Float32, Mask
from alserve.geometry import resize, resize_mask, working_shape
from alserve.measure.dataset import Dataset, load_dataset
from training.learning.data import TrainingData, read_images
from training.model.trainer import Trainer
from training.seeds import derive_seed
from training.settings import Settings, parse_assignments


class Found(NamedTuple):
    """What one classifier reaches, 0 to 1."""

    accuracy: float
    """Share of the test images whose class is right, each at the shape at which it is served."""
    squeezed: float
    """The same of the images squeezed to squares."""
    pointing: float
    """Share of the images with foreground in which the CAM of the true class is highest inside the mask."""


def main() -> None:
    """Train, measure, write the table."""
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--variant", action="append", metavar="NAME=VALUE,...", help="settings; may be repeated")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data)
    rows = []
    for variant in arguments.variant or [""]:
        chosen = parse_assignments(variant.split(",")) if variant else {}
        found = [measure(dataset, Settings.of(None, {**chosen, "seed": seed})) for seed in range(arguments.seeds)]
        rows.append(
            [variant or "as they are", *(_shares([getattr(one, what) for one in found]) for what in Found._fields)]
        )
    how = (
        f"`python benchmarks/cams.py {arguments.data.name}`, number of seeds: {arguments.seeds}; mean, and each; "
        f"{len(dataset.split('train'))} training and {len(dataset.split('test'))} test images; {machine()}."
    )
    pointing = "CAM highest inside the mask, % of the images with foreground"
    titles = ("settings", "accuracy, %", "accuracy on squares, %", pointing)
    write_report(RESULTS / f"cams-{arguments.data.stem}.md", "What the classifier learns", how, table(titles, rows))


def measure(dataset: Dataset, settings: Settings) -> Found:
    """Train a classifier as a run does, and look at the test images."""
    data = TrainingData(dataset, read_images(dataset, settings.short_side), settings)
    trainer, seed = Trainer(settings), derive_seed(settings.seed, 0)
    net = trainer.new_network(len(dataset.classes), seed)
    trainer.train_classifier(net, data.with_classes(), seed)
    samples = [(sample.label, *sample.read()) for sample in dataset.split("test")]
    labels = np.array([label for label, *_ in samples])
    shapes = [working_shape(*image.shape[:2], settings.short_side) for _, image, _ in samples]

    squares = [(settings.short_side, settings.short_side)] * len(samples)

    def classify(sizes: Sequence[tuple[int, int]]) -> tuple[float, list[Float32]]:
        """Return the accuracy on the images at these sizes, and their CAMs."""
        images = (resize(image, size) for (_, image, _), size in zip(samples, sizes, strict=True))
        scores, cams = zip(*trainer.classify(net, images), strict=True)
        return float(np.mean(np.argmax(scores, axis=1) == labels)), list(cams)

    accuracy, cams = classify(shapes)
    inside = [
        points_inside(cam[label], resize_mask(mask, shape))
        for (label, _, mask), shape, cam in zip(samples, shapes, cams, strict=True)
        if mask is not None and mask.any()
    ]
    return Found(accuracy, classify(squares)[0], float(np.mean(inside)))


def points_inside(cam: Float32, mask: Mask) -> bool:
    """Tell whether a CAM [h, w] is highest at a pixel of the mask [height, width]."""
    larger = resize(np.ascontiguousarray(cam), mask.shape)
    return bool(mask[np.unravel_index(larger.argmax(), larger.shape)])


def _shares(values: Sequence[float]) -> str:
    return f"{100 * mean(values):.1f} ({', '.join(f'{100 * value:.1f}' for value in values)})"


if __name__ == "__main__":
    main()
