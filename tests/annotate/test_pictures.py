"""Masks that were saved as pictures, by any paint program."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotations import blob
from pictures import encoded
from PIL import Image

from alserve.errors import DataError
from alserve.files import write_atomic
from training.annotate.formats import read_annotations


@pytest.mark.parametrize(
    "kind", ["grey", "ones", "sixteen bits", "colour", "layer", "black layer", "grey layer", "palette"]
)
def test_masks_from_any_paint_program(tmp_path: Path, kind: str) -> None:
    mask = blob()
    level = mask.astype(np.uint8)
    solid = np.full((*mask.shape, 4), 255, np.uint8)
    pictures: dict[str, Any] = {
        "grey": level * 255,
        "ones": level,
        "sixteen bits": level.astype(np.uint16) * 300,
        "colour": np.dstack([level * 200, level * 0, level * 30]),
        "layer": np.dstack([solid[..., :3], level * 130]),  # white everywhere, seen where it was painted
        "black layer": np.dstack([solid[..., :3] * 0, level * 255]),
        "grey layer": Image.fromarray(np.dstack([solid[..., 0], level * 255]), "LA"),
        "palette": Image.fromarray(level, "P"),
    }
    if kind == "palette":
        pictures["palette"].putpalette([0, 0, 0, 200, 30, 30])
    write_atomic(tmp_path / "a" / "1.png", encoded(pictures[kind]))
    (annotation,) = read_annotations(tmp_path)
    assert annotation.name == "a/1.png"
    np.testing.assert_array_equal(annotation.mask, mask)


def test_reading_a_damaged_picture_names_it(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "1.png", b"hello")
    with pytest.raises(DataError, match=r"1\.png: not an image"):
        list(read_annotations(tmp_path))
