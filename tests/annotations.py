"""Masks, and files that annotation programs might write."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from command import Cli, assert_refused
from hypothesis.extra import numpy as hnp
from pictures import picture

from alserve.files import write_atomic
from training.annotate.formats import read_annotations

Mask = npt.NDArray[np.bool_]

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


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
