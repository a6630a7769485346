"""The whole path on drawn tissue: data, active learning, export, a folder segmented, a service asked, a report."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alserve.drawing import contact_sheet
from alserve.errors import ServiceError
from alserve.files import write_atomic
from alserve.folder.segment import segment
from alserve.images.codec import encode_jpeg
from alserve.measure.dataset import load_dataset
from alserve.predictor import load
from alserve.terminal import print_facts, say
from training.data.synthetic import draw_dataset
from training.report import choose_cases, report_run
from training.run.records import read_rounds
from training.settings import Settings
from training.train import train_run

SETTINGS = {
    "method": "masks-only",
    "initial": 2,
    "per_round": 3,
    "rounds": 3,
    "short_side": 160,
    "crop": 128,
    "batch": 8,
    "classifier_steps": 200,
    "steps": 240,
    "encoder_lr": 0.0,
}
"""Small enough for a few minutes on two cores: the encoder learns the classes, and then stays as it is."""

START_SECONDS = 60

SHEET_ROWS = 4


def run_demo(out: Path, *, seed: int) -> None:
    """Run every step, and say where its results are; the same command again continues a stopped demo.

    Args:
        out: Folder for everything: `data/`, `run/`, `segmented/`, `answer.json`, `report.html`,
            `contact_sheet.jpg`.
        seed: Drives data and training.

    Raises:
        RunError: `out/run` holds another run.
        ServiceError: The service did not start.
    """
    say("drawing the data set")
    data = draw_dataset(out / "data", seed=seed)
    model = train_run(data, out / "run", Settings.of(None, {**SETTINGS, "seed": seed})).model
    say("segmenting the folder of images")
    images = out / "data" / "images"
    segmented = segment(images, out=out / "segmented", model=model, device="cpu", overwrite=True)
    say("asking the service about one of them")
    answer = ask_service(model, min(images.glob("*/test-*")))
    write_atomic(out / "answer.json", json.dumps(answer, indent=2).encode())
    report_run(out / "run", out / "report.html", title="alserve demo")
    cases = choose_cases(load(model, device="cpu"), load_dataset(data), SHEET_ROWS)
    sheet = contact_sheet([(f"{case.prediction.label}  {case.score:.0%}", case.pictures()) for case in cases])
    write_atomic(out / "contact_sheet.jpg", encode_jpeg(sheet))
    _show(out, answer, f"{segmented.images} images, {segmented.rate:.1f} a second")


def ask_service(model: Path, image: Path) -> dict[str, Any]:
    """Start the service, post one image to it, and return its answer."""
    with _serving(model) as url, urllib.request.urlopen(f"{url}/predict", image.read_bytes()) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
    return found


@contextmanager
def _serving(model: Path) -> Iterator[str]:
    """Run `alserve serve` as a user would; yield its address once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "alserve", "serve", "--model", str(model), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)  # noqa: S603
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + START_SECONDS
        while not _is_ready(url):
            if server.poll() is not None or time.monotonic() > until:
                raise ServiceError(f"the service did not start; try: alserve serve --model {model}")
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False


def _show(out: Path, answer: dict[str, Any], segmented: str) -> None:
    table = Table("round", "masks", "pseudo-masks", "threshold", "test Dice", "test accuracy", title="What it learned")
    for record in read_rounds(out / "run"):
        figures = f"{100 * record['test_dice']:.1f} %", f"{100 * record['test_accuracy']:.1f} %"
        counts = (str(record[name]) for name in ("round", "masks_used", "pseudo_labels"))
        table.add_row(*counts, f"{record['threshold']:.2f}", *figures)
    Console().print(table)
    print_facts(
        "Where things are",
        [
            ("report", f"{out / 'report.html'} (open it in a browser)"),
            ("picture", str(out / "contact_sheet.jpg")),
            ("model", str(out / "run" / "model.onnx")),
            ("masks, CAMs, overlays", f"{out / 'segmented'} ({segmented})"),
            ("answer of the service", f"{out / 'answer.json'} (label {answer['label']})"),
            ("next", f"alserve serve --model {out / 'run' / 'model.onnx'}"),
        ],
    )
