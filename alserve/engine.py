"""The ONNX Runtime session: one file, one device, and no silent fall-back from one device to another."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from alserve.errors import DeviceError, ModelError
from alserve.modelfile import INPUT, OUTPUTS, ModelSpec, from_metadata

Float32 = npt.NDArray[np.float32]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Outputs(NamedTuple):
    """What the network gives for one batch."""

    scores: Float32
    """[batch, classes], softmax, 0 to 1."""
    cams: Float32
    """[batch, classes, height / 32, width / 32], activations without a bound."""
    mask: Float32
    """[batch, height, width], foreground probability, 0 to 1."""


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


def choose_device(device: str) -> tuple[str, int]:
    """Turn what the user asked for into a device that is there.

    Args:
        device: "auto" (CUDA where it is usable, else the CPU), "cpu", "cuda" or "cuda:N".

    Returns:
        (kind, index): "cpu" or "cuda", and the GPU's number (0 on the CPU).

    Raises:
        DeviceError: The name is unknown, or ONNX Runtime was installed without CUDA.
    """
    kind, _, number = device.partition(":")
    if kind not in {"auto", *PROVIDERS} or (number and (kind != "cuda" or not number.isdecimal())):
        raise DeviceError(f"unknown device '{device}'; use auto, cpu, cuda or cuda:N")
    cuda_built = PROVIDERS["cuda"] in ort.get_available_providers()
    if kind == "cuda" and not cuda_built:
        raise DeviceError(
            "CUDA was asked for, but this ONNX Runtime has no CUDA provider; "
            "run 'alserve doctor', or 'pip install alserve[cuda]'"
        )
    if kind == "auto":
        kind = "cuda" if cuda_built and _has_gpu() else "cpu"
    return kind, int(number or 0)


def _has_gpu() -> bool:
    """Tell whether a GPU driver is there at all, so that 'auto' does not try CUDA on every laptop."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists() or os.name == "nt"


class Engine:
    """A model file, loaded and ready on one device; `run` may be called from many threads at once.

    Args:
        path: The model file.
        device: See `choose_device`.
        threads: Threads inside one call of `run`, on the CPU.

    Raises:
        ModelError: The file is missing, no model, or of a newer format.
        DeviceError: The device that was asked for cannot be used.
    """

    def __init__(self, path: Path, *, device: str = "auto", threads: int | None = None) -> None:
        kind, index = choose_device(device)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: the model cannot be read: {error.strerror}") from error
        self.path = path
        self.sha256 = hashlib.sha256(data).hexdigest()
        self._session, self.device = _session(data, path, kind, index, threads, may_fall_back=device == "auto")
        self.spec: ModelSpec = from_metadata(self._session.get_modelmeta().custom_metadata_map, str(path))
        inputs = tuple(tensor.name for tensor in self._session.get_inputs())
        outputs = tuple(tensor.name for tensor in self._session.get_outputs())
        if (inputs, outputs) != ((INPUT,), OUTPUTS):
            raise ModelError(
                f"{path}: takes {', '.join(inputs)} and gives {', '.join(outputs)}, "
                f"not {INPUT} and {', '.join(OUTPUTS)}; export the model again"
            )

    def run(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """Run one batch.

        Args:
            images: uint8 [batch, height, width, 3], RGB, height and width multiples of 32.

        Raises:
            DeviceError: The device gave up, most often for want of memory.
        """
        try:
            return Outputs(*self._session.run(OUTPUTS, {INPUT: images}))
        except Exception as error:  # noqa: BLE001  see `_session`
            raise DeviceError(
                f"{self.path.name} failed on {self.device} with a batch of shape {images.shape}: "
                f"{str(error).splitlines()[0]}; try a smaller batch"
            ) from None


def _session(
    data: bytes, path: Path, kind: str, index: int, threads: int | None, *, may_fall_back: bool
) -> tuple[ort.InferenceSession, str]:
    """Open the session on the device; give it together with the device's name ("cpu", "cuda:0")."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.log_severity_level = 4  # failures reach the user as our own errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[str | tuple[str, dict[str, str]]] = [PROVIDERS["cpu"]]
    if kind == "cuda":
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
        cuda = {"device_id": str(index), "cudnn_conv_algo_search": "HEURISTIC"}
        providers.insert(0, (PROVIDERS["cuda"], cuda))
    try:
        session = ort.InferenceSession(data, options, providers=providers)
    except Exception as error:  # noqa: BLE001  ONNX Runtime raises a dozen unrelated types
        if kind == "cuda" and may_fall_back:
            return _session(data, path, "cpu", 0, threads, may_fall_back=False)
        if kind == "cuda" and "CUDA" in str(error):
            raise DeviceError(f"CUDA cannot be used: {str(error).splitlines()[0]}") from None
        raise ModelError(f"{path}: not an ONNX model that can be run ({str(error).splitlines()[0]})") from None
    used = session.get_providers()[0]
    if used != PROVIDERS[kind] and not may_fall_back:
        raise DeviceError("CUDA was asked for, but ONNX Runtime fell back to the CPU; run 'alserve doctor' to see why")
    return session, f"cuda:{index}" if used == PROVIDERS["cuda"] else "cpu"
