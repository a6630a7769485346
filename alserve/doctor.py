"""What a model file says of itself, and what stands in the way on this machine."""

import platform
from pathlib import Path

import onnxruntime as ort

from alserve.device import (
    available_cores,
    choose_device,
    cpu_features,
    find_conflicts,
    installed_packages,
    mend,
    why_no_cuda,
)
from alserve.engine import Engine
from alserve.errors import AlserveError
from alserve.modelfile import Cost, default_model
from alserve.terminal import print_facts

PACKAGES = ("alserve", "onnxruntime", "onnxruntime-gpu", "opencv-python", "bentoml", "torch")


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
            *describe_cost(spec.cost),
            ("format version", str(spec.format_version)),
            ("size", f"{path.stat().st_size / 1e6:.1f} MB"),
            ("sha256", engine.sha256),
        ],
    )


def describe_cost(cost: Cost | None) -> list[tuple[str, str]]:
    """Say what a reduced precision costs, as (name, value) pairs; nothing for a full model."""
    if cost is None:
        return []
    pairs = {
        "Dice": cost.dice,
        "IoU": cost.iou,
        "accuracy": cost.accuracy,
        "size, MB": cost.megabytes,
        "images/s, one thread": cost.images_per_second,
    }
    return [
        ("compared with fp32", f"on {cost.images} images of split '{cost.split}'"),
        *((name, f"{before:.3f} -> {after:.3f}") for name, (before, after) in pairs.items() if before is not None),
        ("same label", f"{cost.label_agreement:.3f}"),
        ("mask IoU with fp32", f"{cost.mask_iou:.3f}"),
        ("largest score difference", f"{cost.max_score_difference:.4f}"),
    ]


def print_machine() -> int:
    """Print versions, devices and cores, and how to mend packages that get in each other's way.

    Returns:
        0, or 1 if packages conflict.
    """
    versions = installed_packages()
    conflicts = find_conflicts(versions)
    print_facts(
        "This machine",
        [
            ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
            *((name, versions[name]) for name in PACKAGES if name in versions),
            *([] if "torch" in versions else [("torch", "not installed (only training needs it)")]),
            ("providers built in", ", ".join(ort.get_available_providers())),
            ("CUDA", why_no_cuda() or "usable"),
            ("OpenVINO", versions.get("openvino", "not installed (optional)")),
            ("device 'auto' is", _auto_device()),
            ("cores to use", str(available_cores())),
            ("for int8", _cpu_features()),
            *(("CONFLICT", f"{' beside '.join(names)}; run: {mend(names)}") for names in conflicts),
            *([] if conflicts else [("conflicts", "none")]),
        ],
        alarm="CONFLICT",
    )
    return int(bool(conflicts))


def _auto_device() -> str:
    """Tell which device 'auto' gives and why; a GPU is believed only once a model has been opened on it."""
    chosen = choose_device("auto")
    if chosen.kind == "cpu":
        return f"cpu ({chosen.reason})"
    try:
        return Engine(default_model(), device="cuda").device
    except AlserveError as error:
        return f"cpu, though there is a GPU: {error}"


def _cpu_features() -> str:
    features = cpu_features()
    if features is None:
        return "unknown on this system"
    return ", ".join(features) or "none: int8 models bring little here"


def _measured(value: float | None, form: str = ".3f") -> str:
    return "not measured" if value is None else format(value, form)
