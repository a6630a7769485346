"""What the commands info and doctor print: what a model file says of itself, and what this machine can do."""

import platform
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

from alserve.errors import AlserveError, DeviceError, ModelError
from alserve.geometry import STRIDE
from alserve.modelfile import Provenance, default_model
from alserve.runtime.device import AUTO, available_cores, choose_device, describe_cpu, int8_is_quick
from alserve.runtime.engine import Engine
from alserve.runtime.libraries import RUNTIMES
from alserve.runtime.packages import find_conflicts, fix_command, installed_packages
from alserve.runtime.selfcheck import exceeded, limits_of
from alserve.terminal import print_facts

PACKAGES = ("alserve", "opencv-python", "bentoml", "torch")
"""Distributions whose versions are printed, beside those of the libraries that run models."""


def print_model(path: Path) -> None:
    """Print what a model file says: classes, threshold, how it was trained, how well it does.

    Raises:
        ModelError: The file is missing, no model, or of a newer format.
    """
    engine = Engine(path, device="cpu", self_check=False)
    spec, made = engine.spec, engine.spec.provenance
    print_facts(
        str(path),
        [
            ("classes", ", ".join(spec.classes)),
            *([("without foreground", ", ".join(spec.empty_classes))] if spec.empty_classes else []),
            ("mask threshold", f"{spec.threshold:.2f}"),
            ("working short side", f"{spec.short_side} pixels"),
            ("encoder", made.encoder),
            *([("decoder", made.decoder)] if made.decoder else []),
            ("method", made.method),
            (
                "masks used",
                f"{made.masks_used} (of {made.train_images} training images, {made.rounds} rounds)",
            ),
            *(() if made.test_false_alarms is None else _detection(made)),
            ("test Dice", _measured(made.test_dice)),
            ("test IoU", _measured(made.test_iou)),
            ("test accuracy", _measured(made.test_accuracy)),
            ("seed", str(made.seed)),
            ("data fingerprint", made.data_fingerprint),
            ("made with", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
            (
                "parity with torch",
                _measured(max((p.max_difference for p in spec.parity), default=None), ".1e"),
            ),
            ("precision", spec.precision),
            *(spec.cost.describe() if spec.cost else ()),
            ("answers here", describe_check(engine)),
            ("format version", str(spec.format_version)),
            ("size", f"{path.stat().st_size / 1e6:.1f} MB"),
            ("sha256", engine.sha256),
        ],
    )


def describe_check(engine: Engine) -> str:
    """Say how far a model's answers here are from those of the trained network."""
    if not engine.references:
        return "not known: the file carries no reference images"
    try:
        deviation = engine.deviation()
    except AlserveError as error:
        return f"WRONG: {error}"
    reason = exceeded(deviation, limits_of(engine.spec, engine.precision))
    found = f"{deviation}, on {len(engine.references)} reference images"
    return f"WRONG: {reason} ({found})" if reason else f"as trained: {found}"


def print_machine() -> int:
    """Print versions, devices and cores, and how to repair packages that overwrite each other.

    Returns:
        0, or 1 if packages conflict.
    """
    versions = installed_packages()
    conflicts = find_conflicts(versions)
    libraries = dict.fromkeys(package for backend in RUNTIMES.values() for package in backend.packages)
    print_facts(
        "This machine",
        [
            ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
            *((name, versions[name]) for name in (*PACKAGES, *libraries) if name in versions),
            *([] if "torch" in versions else [("torch", "not installed (only training needs it)")]),
            ("providers built in", ", ".join(ort.get_available_providers())),
            *((f"device {name}", backend.obstacle() or "usable") for name, backend in RUNTIMES.items()),
            ("device auto", _auto_device()),
            ("cores to use", str(available_cores())),
            ("for int8", f"{describe_cpu()}{'; int8 models bring little here' if int8_is_quick() is False else ''}"),
            *(("CONFLICT", f"{' beside '.join(names)}; run: {fix_command(names)}") for names in conflicts),
            *([] if conflicts else [("conflicts", "none")]),
        ],
        alarm="CONFLICT",
    )
    return int(bool(conflicts))


SPEED_SECONDS = 2.0
"""Time that each model is measured on each device, at least."""

_SPEED_SHAPE = (2, 3)
"""Rows to columns of the image that is measured with."""


class Speed(NamedTuple):
    """One model on one device."""

    name: str
    images_per_second: float | None
    """None where it cannot be used."""
    note: str


def print_speeds(models: Sequence[Path]) -> int:
    """Measure models on each device of this machine, and print which is fastest of those that answer as trained.

    Args:
        models: Model files, such as an fp32 one and its int8 copy.

    Returns:
        0, or 1 if none gives what was trained anywhere.

    Raises:
        ModelError: A file is missing, no model, or of a newer format.
    """
    engines: list[tuple[str, Engine | None, str]] = []
    for path in models:
        for device, backend in RUNTIMES.items():
            if backend.obstacle():
                continue
            name = f"{path} on {device}"
            try:
                engine = Engine(path, device=device, threads=1 if backend.batch_size == 1 else None, self_check=False)
            except DeviceError as error:
                engines.append((name, None, str(error)))
            else:
                engines.append((f"{name} ({_computes(engine)})", engine, describe_check(engine)))
    speeds = _measure_speeds([engine for _, engine, note in engines if engine and not note.startswith("WRONG")])
    rows = [Speed(name, speeds.get(id(engine)), note) for name, engine, note in engines]
    usable = [row for row in rows if row.images_per_second]
    best = max(usable, key=lambda row: row.images_per_second or 0, default=None)
    print_facts(
        f"Images a second on all {available_cores()} cores ({describe_cpu()})",
        [
            *((row.name, f"{_rate_of(row)}{row.note}") for row in rows),
            ("fastest", best.name if best else "none: no model answers as trained here"),
        ],
        alarm="none",
    )
    return int(best is None)


def _rate_of(row: Speed) -> str:
    return f"{row.images_per_second:.1f} images/s; " if row.images_per_second else ""


def _computes(engine: Engine) -> str:
    return engine.spec.precision if engine.precision == "as exported" else engine.precision


def _measure_speeds(engines: Sequence[Engine]) -> dict[int, float]:
    """Return images a second by `id`, of all callers together as in a folder run; in turns, medians of rounds."""
    rates: dict[int, list[float]] = {id(engine): [] for engine in engines}
    for _ in range(3):
        for engine in engines:
            rates[id(engine)].append(_rate(engine, SPEED_SECONDS / 3))
    return {key: median(found) for key, found in rates.items()}


def _rate(engine: Engine, seconds: float) -> float:
    rows, columns = _SPEED_SHAPE
    height = engine.spec.short_side
    batch = np.zeros((engine.batch_size, height, height * columns // rows // STRIDE * STRIDE, 3), np.uint8)
    engine.run(batch)
    callers = 1 if engine.batch_size > 1 else available_cores()
    start = time.perf_counter()

    def call(_: int) -> int:
        done = 0
        while not done or time.perf_counter() - start < seconds:
            engine.run(batch)
            done += len(batch)
        return done

    with ThreadPoolExecutor(callers) as pool:
        done = sum(pool.map(call, range(callers)))
    return done / (time.perf_counter() - start)


def _auto_device() -> str:
    """Tell which device "auto" is and why; where there is a model, by opening it, which alone shows that it works."""
    try:
        engine = Engine(default_model(), self_check=False)
    except ModelError:
        chosen = choose_device(AUTO)
        return f"{chosen} ({chosen.reason})"
    return f"{engine.device} ({engine.device_reason})"


def _detection(made: Provenance) -> list[tuple[str, str]]:
    """Return what comes before the mean Dice where some test images have no foreground."""
    return [
        ("test Dice with foreground", _measured(made.test_foreground_dice)),
        ("test images found", _measured(made.test_found)),
        ("test false alarms", _measured(made.test_false_alarms)),
    ]


def _measured(value: float | None, form: str = ".3f") -> str:
    return "not measured" if value is None else format(value, form)
