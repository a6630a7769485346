"""Masks, and files that annotation programs might write."""

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from command import Cli, assert_refused
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import picture

from alserve.files import write_atomic
from training.annotate.formats import read_annotations

Mask = npt.NDArray[np.bool_]

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


@st.composite
def drawn_shapes(draw: st.DrawFn) -> Mask:
    """Discs and rings that overlap and reach over the border, joined by lines of one pixel."""
    mask = np.zeros((draw(st.integers(8, 60)), draw(st.integers(8, 60))), np.uint8)
    height, width = mask.shape
    middles = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    for _ in range(draw(st.integers(1, 4))):
        middle, radius, hole = draw(middles), draw(st.integers(0, 14)), draw(st.integers(0, 8))
        cv2.circle(mask, middle, radius, 1, -1)
        if hole < radius:
            cv2.circle(mask, middle, hole, 0, -1)
        cv2.line(mask, middle, draw(middles), 1)
    return mask.astype(np.bool_)


def blob(height: int = 40, width: int = 60, seed: int = 0) -> Mask:
    return picture(height, width, seed)[..., 0] > 128


def write_json(path: Path, content: object) -> Path:
    write_atomic(path, json.dumps(content).encode())
    return path


def read_one(path: Path) -> Mask:
    (annotation,) = read_annotations(path)
    assert annotation.mask is not None
    return annotation.mask


def assert_import_refused(cli: Cli, folder: Path, content: object, words: list[str]) -> None:
    """Import a file, of this JSON or these bytes: the error names it, and nothing is written."""
    if isinstance(content, str):
        content = content.encode()
    path = folder / "file.json"
    write_atomic(path, content if isinstance(content, bytes) else json.dumps(content).encode())
    assert_refused(cli("masks", "import", path, "--out", folder / "out"), "file.json", *words)
    assert not (folder / "out").exists()
