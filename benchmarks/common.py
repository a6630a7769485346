"""Shared by the benchmarks: their command line, drawn images, times, and the tables that they write."""

import argparse
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alserve.files import write_atomic
from alserve.images.codec import encode_jpeg
from alserve.runtime.device import available_cores, describe_cpu

HERE = Path(__file__).parent
RESULTS = HERE / "results"
ALSERVE = [sys.executable, "-m", "alserve"]
"""The command line, as a subprocess starts it."""
GLAS_SHAPE = (522, 775)
"""Height and width of a GlaS image, in pixels."""


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a benchmark's command line, with its module's docstring as help."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def draw_jpeg(path: Path, number: int, shape: tuple[int, int] = GLAS_SHAPE) -> bytes:
    """Draw a tissue image of (height, width) pixels, write it as JPEG, and return its bytes.

    The same number draws the same image. `training` is imported here only: it changes how waiting threads behave.
    """
    from training.data.tissue import CLASSES, draw_tissue

    image, _ = draw_tissue(np.random.default_rng([7, number]), CLASSES[number % len(CLASSES)], shape)
    data = encode_jpeg(image)
    write_atomic(path, data)
    return data


def timed(work: Callable[..., object], *arguments: Any, **more: Any) -> float:  # noqa: ANN401
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work(*arguments, **more)
    return time.perf_counter() - start


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine() -> str:
    """Describe what the figures were measured on."""
    return f"{available_cores()} cores ({describe_cpu()}), {platform.system()}, Python {platform.python_version()}"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_report(path: Path, heading: str, *parts: str) -> None:
    """Write a report in Markdown, its parts as paragraphs, and print it."""
    text = "\n\n".join([f"# {heading}", *parts]) + "\n"
    write_atomic(path, text.encode())
    print(text)
