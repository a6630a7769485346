"""A small seeded data set of drawn tissue, for the demo and the tests."""

import csv
import io
from pathlib import Path

import numpy as np

from alserve.files import write_atomic
from alserve.images.codec import encode_jpeg, encode_png, to_grey
from training.data.tissue import CLASSES, draw_tissue


def draw_dataset(
    out: Path,
    *,
    seed: int,
    train_per_class: int = 24,
    test_per_class: int = 12,
    size: tuple[int, int] = (240, 320),
) -> Path:
    """Draw images and masks, and the CSV that lists them; the same arguments give the same bytes.

    Args:
        out: Folder for `images/CLASS/NAME.jpg`, `masks/CLASS/NAME.png` (0 and 255) and `data.csv`.
        seed: Drives everything that is random. Each image has its own stream, so that a larger data set
            begins with the images of a smaller one.
        train_per_class: Images of split "train" in each class.
        test_per_class: Images of split "test" in each class.
        size: (height, width) in pixels, from which each image's own differs by up to a tenth.

    Returns:
        The CSV: columns image, mask, label, split; paths relative to it.
    """
    rows = [("image", "mask", "label", "split")]
    for number, (split, count) in enumerate((("train", train_per_class), ("test", test_per_class))):
        for label in CLASSES:
            for index in range(count):
                rng = np.random.default_rng([seed, number, CLASSES.index(label), index])
                height, width = (round(side * rng.uniform(0.9, 1.1)) for side in size)
                image, mask = draw_tissue(rng, label, (height, width))
                names = f"images/{label}/{split}-{index:03}.jpg", f"masks/{label}/{split}-{index:03}.png"
                write_atomic(out / names[0], encode_jpeg(image))
                write_atomic(out / names[1], encode_png(to_grey(mask)))
                rows.append((*names, label, split))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    path = out / "data.csv"
    write_atomic(path, table.getvalue().encode())
    return path
