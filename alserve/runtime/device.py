"""Where a model can run: the devices that are here and which of them to use, and the cores this process may use."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from alserve.errors import DeviceError
from alserve.modelfile import Cost
from alserve.registry import suggest
from alserve.runtime.libraries import RUNTIMES, Backend

AUTO = "auto"


class Device(NamedTuple):
    """A device, and why it is this one."""

    name: str
    """Of its kind, in `alserve.runtime.libraries.RUNTIMES`."""
    number: int = 0
    """Which of several of its kind."""
    reason: str = "asked for"

    @property
    def backend(self) -> Backend:
        """What runs models there."""
        return RUNTIMES[self.name]

    def __str__(self) -> str:
        """Return it as a user asks for it."""
        return f"{self.name}:{self.number}" if self.backend.numbered else self.name


def device_names() -> list[str]:
    """Return what a user can ask for, such as "auto", "cpu", "cuda" and "cuda:N"."""
    names = [AUTO]
    for name, backend in RUNTIMES.items():
        names += [name, f"{name}:N"] if backend.numbered else [name]
    return names


def choose_device(device: str, failed: Mapping[str, str] = MappingProxyType({})) -> Device:
    """Turn what the user asked for into a device that should be there; only a session shows that it works.

    Args:
        device: One of `device_names`. With "auto", it is CUDA where nothing stands in its way, else the CPU, or what
            else `alserve.runtime.libraries` prefers.
        failed: Names of devices that "auto" is to pass over, with the reason.

    Raises:
        DeviceError: The name is unknown, or something stands in the way of the device that was asked for.
    """
    if device == AUTO:
        return _preferred(failed)
    name, colon, number = device.partition(":")
    backend = RUNTIMES.get(name)
    if backend is None or (colon and not (backend.numbered and number.isdecimal())):
        raise DeviceError(f"unknown device '{device[:40]}'; {suggest(device, device_names())}")
    if obstacle := backend.obstacle():
        raise DeviceError(f"{name} was asked for, but cannot be used: {obstacle}")
    return Device(name, int(number or 0))


def _preferred(failed: Mapping[str, str]) -> Device:
    """Return the first device that nothing is seen to stand in the way of; its reason tells of those before it."""
    ranked = sorted(
        ((backend.preference, name) for name, backend in RUNTIMES.items() if backend.preference is not None),
        reverse=True,
    )
    obstacles: list[str] = []
    for _, name in ranked:
        if obstacle := failed.get(name) or RUNTIMES[name].obstacle():
            obstacles.append(obstacle)
        else:
            return Device(name, 0, "; ".join(obstacles) or "nothing stands in its way")
    raise DeviceError(f"no device can be used: {'; '.join(obstacles)}")


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
