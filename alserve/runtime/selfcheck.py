"""Does a model file compute here what the trained network computed? Its reference images tell.

The same file computes other numbers on another CPU, GPU, driver or library; mostly by little, sometimes by far too
much, such as 8-bit sums that saturate on one kind of CPU. So a model is compared with these answers where it
is loaded. What passed once, in the same place and the same versions, is remembered in the user's cache folder.
"""

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alserve.arrays import UInt8
from alserve.errors import ModelError
from alserve.geometry import working_shape
from alserve.modelfile import ModelSpec, Outputs, Reference


class Limits(NamedTuple):
    """How far a precision may be from the trained network, over all reference images."""

    score: float
    """Largest difference of a class score. A label may change only where the scores were closer than this."""
    cam: float
    """Mean difference of the CAMs, as a share of the model's `cam_range`."""
    mask_iou: float
    """Least IoU of the masks; pixels within `UNSURE` of the threshold do not count."""


LIMITS = {
    "fp32": Limits(0.02, 0.02, 0.98),
    "fp16": Limits(0.02, 0.02, 0.98),
    "bf16": Limits(0.1, 0.08, 0.97),
    "int8": Limits(0.3, 0.1, 0.9),
}
"""By precision, from fine to coarse, those of fp32 with room for TF32 on GPUs.

Found with models of drawn tissue, GlaS and tiles, the worst of all: fp32 0.000, 0.0 %, 1.000; fp16 0.003, 0.5 %,
1.000; bf16 (OpenVINO) 0.022, 3.6 %, 0.998; int8 that passes the limits of `training.export.quantize` 0.004,
6.0 %, 0.970. What is to be found: int8 with sums that saturate (weights of 8 bits, a CPU without VNNI), and int8 in
OpenVINO, from 11 %.
"""

UNSURE = 0.02
"""A pixel whose probability is this close to the threshold may fall on either side of it."""

_SMOOTH = 0.005
"""Added to both sides of the IoU, as a share of all pixels: without it, one pixel would decide where nothing is."""


class Deviation(NamedTuple):
    """How far a loaded model is from the trained network, over all reference images."""

    labels: int
    """Images whose label changed though the trained network was sure of it."""
    score: float
    cam: float
    mask_iou: float
    """These three as in `Limits`."""

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"largest score difference {self.score:.4f}, mean CAM difference {100 * self.cam:.1f} %, "
            f"mask IoU {self.mask_iou:.3f}, labels changed {self.labels}"
        )


Run = Callable[[UInt8], Outputs]


def check_outputs(outputs: Outputs, shape: tuple[int, int, int], spec: ModelSpec, where: str) -> None:
    """Check what no model of ours gets wrong: shapes, and that probabilities are probabilities.

    Args:
        outputs: What came out.
        shape: (batch, height, width) of what went in.
        spec: The model's contract.
        where: Model and device, for messages.

    Raises:
        ModelError: The outputs have other shapes than they should, or are not finite, or no probabilities.
    """
    (batch, height, width), classes, cell = shape, len(spec.classes), spec.cam_stride
    expected = ((batch, classes), (batch, classes, height // cell, width // cell), (batch, height, width))
    shapes = tuple(output.shape for output in outputs)
    if shapes != expected:
        raise ModelError(f"{where}: gives outputs of shapes {shapes}, not {expected}; export the model again")
    if not all(np.isfinite(output).all() for output in outputs):
        raise ModelError(f"{where}: gives numbers that are not finite; export the model again")
    sums = outputs.scores.sum(axis=1)
    if np.abs(sums - 1).max() > 1e-2 or outputs.mask.min() < 0 or outputs.mask.max() > 1:  # noqa: PLR2004
        raise ModelError(f"{where}: gives no probabilities; export the model again")


def measure(run: Run, spec: ModelSpec, references: Sequence[Reference], where: str) -> Deviation:
    """Compare a loaded model with the answers of the trained network.

    Args:
        run: The model; takes and returns one batch.
        spec: Its contract.
        references: The images and answers that it carries, at least one.
        where: Model and device, for messages.

    Raises:
        ModelError: See `check_outputs`.
    """
    low, high = spec.cam_range
    labels, scores, cams, common, union, pixels = 0, [], [], 0, 0, 0
    for image, *answers in references:
        outputs = run(image[None])
        check_outputs(outputs, (1, *image.shape[:2]), spec, where)
        expected = Outputs(*answers)
        difference = float(np.abs(outputs.scores[0] - expected.scores).max())
        best, second = np.sort(expected.scores)[:-3:-1]
        sure = best - second > LIMITS[spec.precision].score
        labels += int(sure and outputs.scores[0].argmax() != expected.scores.argmax())
        scores.append(difference)
        cams.append(float(np.abs(outputs.cams[0] - expected.cams).mean()) / ((high - low) or 1))
        decided = np.abs(expected.mask - spec.threshold) > UNSURE
        ours, theirs = (mask[decided] > spec.threshold for mask in (outputs.mask[0], expected.mask))
        common += int(np.count_nonzero(ours & theirs))
        union += int(np.count_nonzero(ours | theirs))
        pixels += ours.size
    smooth = _SMOOTH * pixels or 1
    return Deviation(labels, max(scores), float(np.mean(cams)), (common + smooth) / (union + smooth))


def limits_of(spec: ModelSpec, computes_in: str) -> Limits:
    """Return the limits of a file on a device: those of the coarser of the two precisions.

    Args:
        spec: The contract.
        computes_in: `Engine.precision`.
    """
    kinds = list(LIMITS)
    here = {"bf16": "bf16", "f16": "fp16"}.get(computes_in, "fp32")
    return LIMITS[max(spec.precision, here, key=kinds.index)]


def exceeded(deviation: Deviation, limits: Limits) -> str | None:
    """Say in which way a model is too far from the trained network; None if it is not."""
    reasons = []
    if deviation.labels:
        reasons.append(f"{deviation.labels} of its labels changed")
    if not deviation.score <= limits.score:
        reasons.append(f"scores differ by {deviation.score:.3f} (at most {limits.score:g})")
    if not deviation.cam <= limits.cam:
        reasons.append(f"CAMs differ by {100 * deviation.cam:.1f} % (at most {100 * limits.cam:g} %)")
    if not deviation.mask_iou >= limits.mask_iou:
        reasons.append(f"mask IoU is {deviation.mask_iou:.3f} (at least {limits.mask_iou:g})")
    return ", ".join(reasons) or None


def try_drawn_image(run: Run, spec: ModelSpec, where: str) -> None:
    """Predict a drawn image at the working size, and check what comes out as `check_outputs` does.

    Raises:
        ModelError: See `check_outputs`.
        DeviceError: The device gave up.
    """
    height, width = working_shape(96, 128, spec.short_side)
    rows, columns = np.indices((height, width))
    image = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)
    check_outputs(run(image[None]), (1, height, width), spec, where)


class PassedCheck:
    """A note in the user's cache folder that a model passed; a cache that cannot be used only costs the check again.

    The note is an empty file whose name is the hash of all that decides what the model computes.

    Args:
        parts: The file's hash, the device, and what else decides it.
    """

    def __init__(self, *parts: str) -> None:
        key = "\n".join((*parts, _machine()))
        self._path = cache_folder() / "self-check" / hashlib.sha256(key.encode()).hexdigest()

    def is_noted(self) -> bool:
        """Tell whether it passed before."""
        with suppress(OSError, ValueError):
            return self._path.is_file()
        return False

    def note(self) -> None:
        """Note that it passed."""
        with suppress(OSError, ValueError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()


def cache_folder() -> Path:
    """Return `$ALSERVE_CACHE`, else this package's folder in the user's cache; it need not exist."""
    if named := os.environ.get("ALSERVE_CACHE"):
        return Path(named)
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "alserve"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local").expanduser() / "alserve" / "Cache"
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  Path.home raises where there is none
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "alserve"


@cache
def _machine() -> str:
    """Describe the CPU, the GPUs and their driver, as far as the system tells."""
    words = [platform.system(), platform.machine(), platform.processor()]
    sources = [Path("/proc/driver/nvidia/version"), *sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    for path in sources:
        with suppress(OSError):
            words.append(path.read_text())
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        words += sorted({line for line in lines if line.lower().startswith(("model name", "flags", "features"))})
    return "\n".join(words)
