"""Where a model can run: which device is there, why not the other one, and how many cores this process may use."""

import ctypes
import os
import platform
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import onnxruntime as ort

from alserve.errors import DeviceError
from alserve.modelfile import Cost

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

CONFLICTING_PACKAGES = (
    ("onnxruntime-gpu", "onnxruntime", "onnxruntime-directml", "onnxruntime-openvino"),
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
)
"""Distributions that install over each other's files; the first that is there is the one to keep."""

_CPU_FEATURES = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx_vnni": "vnni",
    "avx512_vnni": "vnni",
    "amx_int8": "amx-int8",
    "asimddp": "dot product",
    "i8mm": "int8 matrices",
}
"""What makes 8-bit networks quick, by the name in /proc/cpuinfo."""


class Device(NamedTuple):
    """A device, and why it is this one."""

    kind: str
    """"cpu", "cuda" or "openvino"."""
    number: int = 0
    """The GPU's."""
    reason: str = "asked for"


def choose_device(device: str) -> Device:
    """Turn what the user asked for into a device that should be there; only a session shows that it works.

    Args:
        device: "auto" (CUDA where nothing stands in its way, else the CPU), "cpu", "cuda" or "cuda:N"; or "openvino",
            the CPU with OpenVINO, which computes in bfloat16 where the CPU does.

    Raises:
        DeviceError: The name is unknown, or something stands in the way of the CUDA that was asked for.
    """
    kind, _, number = device.partition(":")
    if kind not in {"auto", "openvino", *PROVIDERS} or (number and (kind != "cuda" or not number.isdecimal())):
        raise DeviceError(f"unknown device '{device}'; use auto, cpu, cuda, cuda:N or openvino")
    if kind == "cpu":
        return Device("cpu")
    if kind == "openvino":
        if find_spec("openvino") is None:
            raise DeviceError("OpenVINO is not installed; run: pip install 'alserve[openvino]'")
        return Device("openvino")
    obstacle = why_no_cuda()
    if kind == "cuda" and obstacle:
        raise DeviceError(f"CUDA was asked for, but cannot be used: {obstacle}")
    if kind == "cuda":
        return Device("cuda", int(number or 0))
    return Device("cpu", 0, obstacle) if obstacle else Device("cuda", 0, "a GPU is there")


def why_no_cuda() -> str | None:
    """Say what stands in the way of CUDA, and what to do; None if nothing is seen to."""
    if not _has_driver():
        return "no NVIDIA driver is loaded on this machine"
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        beside = [names for names in find_conflicts(installed_packages()) if names[0].startswith("onnxruntime")]
        if beside:
            return f"{' beside '.join(beside[0])} overwrite each other; run: {fix_command(beside[0])}"
        return "this ONNX Runtime is built without it; run: pip install 'alserve[cuda]'"
    return _missing_library()


def _has_driver() -> bool:
    if platform.system() == "Windows":
        return (Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32" / "nvcuda.dll").exists()
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()


def preload_cuda() -> None:
    """Load the CUDA libraries that pip installed, which the system's loader does not find; silently, if it can."""
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(StringIO()):  # it prints what it does not find
            ort.preload_dlls()


def _missing_library() -> str | None:
    """Load what ONNX Runtime would load for CUDA; give the loader's words where that fails."""
    if platform.system() != "Linux":
        return None
    preload_cuda()
    folder = Path(ort.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        words = str(error)
        return f"{words}; run: pip install 'alserve[cuda]'" if "cannot open shared object" in words else None
    return None


def installed_packages() -> dict[str, str]:
    """Return the installed distributions' versions by name, in lower case with hyphens."""
    from importlib import metadata  # noqa: PLC0415  slow to import

    return {found.metadata["Name"].lower().replace("_", "-"): found.version for found in metadata.distributions()}


def find_conflicts(installed: Iterable[str]) -> list[tuple[str, ...]]:
    """Find distributions that overwrite each other.

    Args:
        installed: Names of the installed distributions, in lower case with hyphens.

    Returns:
        Groups of two and more of `CONFLICTING_PACKAGES` that are installed together, the one to keep first.
    """
    there = set(installed)
    groups = (tuple(name for name in twins if name in there) for twins in CONFLICTING_PACKAGES)
    return [group for group in groups if len(group) > 1]


def fix_command(names: Sequence[str]) -> str:
    """Return the command that leaves the first of some conflicting distributions, whole."""
    return f"pip uninstall -y {' '.join(names)} && pip install {names[0]}"


def available_cores() -> int:
    """Count the cores this process may use: its affinity, cut by the container's CPU quota (cgroup v2 or v1)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, round(quota))) if quota else cores


def _cgroup_quota() -> float | None:
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            base = Path("/sys/fs/cgroup/cpu")
            limit = (base / "cpu.cfs_quota_us").read_text().strip()
            period = (base / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if limit in {"max", "-1"} else int(limit) / int(period)


def cpu_features() -> list[str] | None:
    """Return what this CPU has for 8-bit networks, such as "vnni"; None where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    flags = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
    return sorted({name for flag, name in _CPU_FEATURES.items() if flag in flags})


QUICK_INT8 = frozenset({"vnni", "amx-int8", "dot product", "int8 matrices"})
"""Features without one of which 8-bit networks are hardly quicker than 32-bit ones."""


def describe_cpu() -> str:
    """Say in a few words what this CPU is and has for 8-bit networks."""
    features = cpu_features()
    known = (
        "features unknown" if features is None else ", ".join(features) or "none of the features that make int8 quick"
    )
    return f"{platform.machine()}: {known}"


def int8_is_quick() -> bool | None:
    """Tell whether this CPU has what makes 8-bit networks quick; None where the system does not say."""
    features = cpu_features()
    return None if features is None else not QUICK_INT8.isdisjoint(features)


def advise_against_int8(cost: Cost) -> str | None:
    """Say that int8 is of little use where this CPU lacks what makes it quick; None where it does not."""
    if int8_is_quick() is not False:
        return None
    before, after = cost.images_per_second
    return (
        f"int8 brings little on this CPU ({describe_cpu()}): {after:g} images/s on one thread, {before:g} in fp32; "
        "its file is for CPUs with VNNI or dot products"
    )
