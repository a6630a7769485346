"""Time a folder run with more outputs against one with the mask alone; write benchmarks/results/outputs.md.

    python benchmarks/outputs.py

The runs go by turns, so that whatever else the machine does slows them all; a ratio is the median over the rounds.
Beside it stands that of the processor's time, which other work changes less. Each image is twelve small drawings, each
with a group of glands, so that the model finds about 20 objects.
"""

import time
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

import numpy as np
from common import GLAS_SHAPE, RESULTS, machine, options, table, write_report

from alserve import load
from alserve.arrays import Image
from alserve.files import write_atomic
from alserve.folder.segment import segment
from alserve.images.codec import encode_jpeg
from alserve.modelfile import default_model

SAVES = ("mask", "mask,polygons", "mask,objects", "mask,polygons,objects", "mask,coco", "mask,cam,overlay")
DOWN, ACROSS = 3, 4
"""Drawings in an image."""


def main() -> None:
    """Draw, run by turns, write the table."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, help="model file; default: that of the package")
    arguments = parser.parse_args()
    predictor = load(arguments.model or default_model(), threads=1)
    seconds: dict[str, list[float]] = {save: [] for save in SAVES}
    work: dict[str, list[float]] = {save: [] for save in SAVES}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(arguments.images):
            write_atomic(folder / "in" / f"{number:04}.jpg", encode_jpeg(draw(number)))
        for turn in range(arguments.rounds):
            for save in SAVES:
                start = time.process_time()
                result = segment(folder / "in", out=folder / f"out-{turn}-{save}", model=predictor, save=save)
                work[save].append(time.process_time() - start)
                seconds[save].append(result.seconds)
        objects = mean(row["objects"] for row in result.rows())
    rows = [
        (
            save,
            f"{1000 * median(seconds[save]) / arguments.images:.1f}",
            f"{ratio(seconds[save], seconds['mask']):.2f}",
            f"{ratio(work[save], work['mask']):.2f}",
        )
        for save in SAVES
    ]
    how = (
        f"`python benchmarks/outputs.py`, {arguments.images} drawn images of 522 x 775 pixels with {objects:.0f} "
        f"objects in the mean, model {predictor.engine.sha256[:12]}, working side {predictor.spec.short_side}, median "
        f"of {arguments.rounds} rounds; {machine()}. Images are decoded in processes of their own, whose work is in "
        "the time alone."
    )
    titles = ("--save", "ms an image", "time over mask alone", "processor's time over mask alone")
    write_report(RESULTS / "outputs.md", "Outputs: what they cost", how, table(titles, rows))


def draw(number: int) -> Image:
    """Draw an image; the same number draws the same one. As for `common.draw_jpeg`, `training` is imported here."""
    from training.data.tissue import CLASSES, draw_tissue

    rng = np.random.default_rng([7, number])
    height, width = GLAS_SHAPE
    size = (height // DOWN, -(-width // ACROSS))
    rows = [[draw_tissue(rng, CLASSES[number % len(CLASSES)], size)[0] for _ in range(ACROSS)] for _ in range(DOWN)]
    return np.ascontiguousarray(np.vstack([np.hstack(row) for row in rows])[:, :width])


def ratio(one: list[float], other: list[float]) -> float:
    """Return the median of the ratios of two runs of the same round."""
    return median(mine / its for mine, its in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
