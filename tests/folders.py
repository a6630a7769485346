"""Folders of pictures, folder runs over them in a process of their own, and what they left."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pictures import encoded, picture

from alserve.files import write_atomic
from alserve.folder.manifest import MANIFEST
from alserve.folder.summary import PAGE, TABLE

COMMAND = [sys.executable, "-m", "alserve", "segment"]

SUMMARY = {TABLE, PAGE}
"""What a run writes of all its images, beside the manifest."""

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"

SIZES = {"b.png": (60, 80), "a.jpg": (90, 70), "deep/er/c.tif": (50, 50), "deep/Drüse 腺.bmp": (64, 48)}
SIZES |= {"line\nbreak.webp": (40, 60), "dotted.name.JPEG": (33, 65)}
"""Height and width of the pictures of the fixture `tree`, by their names below it."""

KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".bmp": "BMP", ".webp": "WEBP"}

needs_posix = pytest.mark.skipif(os.name == "nt", reason="no such files and signals on Windows")


def write_picture(path: Path, height: int = 40, width: int = 56, seed: int = 0, *, kind: str = "") -> Path:
    write_atomic(path, encoded(picture(height, width, seed), kind or KINDS.get(path.suffix.lower(), "PNG")))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def manifest(out: Path) -> list[dict[str, Any]]:
    return rows(out / MANIFEST)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def in_process(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
