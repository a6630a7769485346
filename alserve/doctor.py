"""What a model file says of itself, and what stands in the way on this machine."""

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import onnxruntime as ort

from alserve.engine import Engine, available_cores, choose_device
from alserve.errors import AlserveError
from alserve.modelfile import default_model
from alserve.terminal import print_facts

PACKAGES = ("alserve", "onnxruntime", "onnxruntime-gpu", "opencv-python", "bentoml", "torch")

TWINS = (
    ("onnxruntime-gpu", "onnxruntime", "onnxruntime-directml", "onnxruntime-openvino"),
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
)
"""Distributions that install over each other's files; the first that is there is the one to keep."""


def print_model(path: Path) -> None:
    """Print what a model file says: classes, threshold, how it was trained, how well it does.

    Raises:
        ModelError: The file is missing, no model, or of a newer format.
    """
    engine = Engine(path, device="cpu")
    spec, made = engine.spec, engine.spec.provenance
    print_facts(
        str(path),
        [
            ("classes", ", ".join(spec.classes)),
            ("mask threshold", f"{spec.threshold:.2f}"),
            ("working short side", f"{spec.short_side} pixels"),
            ("encoder", made.encoder),
            ("method", made.method),
            (
                "masks used",
                f"{made.masks_used} (of {made.train_images} training images, {made.rounds} rounds)",
            ),
            ("test Dice", _measured(made.test_dice)),
            ("test accuracy", _measured(made.test_accuracy)),
            ("seed", str(made.seed)),
            ("data fingerprint", made.data_fingerprint),
            ("made with", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
            (
                "parity with torch",
                _measured(max((p.max_difference for p in spec.parity), default=None), ".1e"),
            ),
            ("format version", str(spec.format_version)),
            ("size", f"{path.stat().st_size / 1e6:.1f} MB"),
            ("sha256", engine.sha256),
        ],
    )


def print_machine() -> int:
    """Print versions, devices and cores, and how to mend packages that get in each other's way.

    Returns:
        0, or 1 if packages conflict.
    """
    versions = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in metadata.distributions()}
    conflicts = find_conflicts(list(versions))
    print_facts(
        "This machine",
        [
            ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
            *((name, versions[name]) for name in PACKAGES if name in versions),
            *([] if "torch" in versions else [("torch", "not installed (only training needs it)")]),
            ("providers", ", ".join(ort.get_available_providers())),
            ("device 'auto' is", _auto_device()),
            ("cores to use", str(available_cores())),
            *(("CONFLICT", f"{' beside '.join(names)}; run: {mend(names)}") for names in conflicts),
            *([] if conflicts else [("conflicts", "none")]),
        ],
        alarm="CONFLICT",
    )
    return int(bool(conflicts))


def find_conflicts(installed: Sequence[str]) -> list[tuple[str, ...]]:
    """Find distributions that overwrite each other.

    Args:
        installed: Names of the installed distributions, in lower case with hyphens.

    Returns:
        Groups of two and more of `TWINS` that are installed together, the one to keep first.
    """
    groups = (tuple(name for name in twins if name in installed) for twins in TWINS)
    return [group for group in groups if len(group) > 1]


def mend(names: Sequence[str]) -> str:
    """Give the command that leaves the first of some conflicting distributions, whole."""
    return f"pip uninstall -y {' '.join(names)} && pip install {names[0]}"


def _auto_device() -> str:
    """Tell which device 'auto' gives; a GPU is believed only once a model has been opened on it."""
    if choose_device("auto")[0] == "cpu":
        return "cpu"
    try:
        return Engine(default_model(), device="cuda").device
    except AlserveError as error:
        return f"cpu, though there is a GPU: {error}"


def _measured(value: float | None, form: str = ".3f") -> str:
    return "not measured" if value is None else format(value, form)
