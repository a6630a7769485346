"""The ONNX Runtime session: one file, one device, and no silent fall-back from one device to another."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from alserve.device import PROVIDERS, Device, available_cores, choose_device, preload_cuda
from alserve.errors import DeviceError, ModelError
from alserve.modelfile import INPUT, OUTPUTS, ModelSpec, from_metadata

Float32 = npt.NDArray[np.float32]


class Outputs(NamedTuple):
    """What the network gives for one batch."""

    scores: Float32
    """[batch, classes], softmax, 0 to 1."""
    cams: Float32
    """[batch, classes, height / 32, width / 32], activations without a bound."""
    mask: Float32
    """[batch, height, width], foreground probability, 0 to 1."""


class Engine:
    """A model file, loaded and ready on one device; `run` may be called from many threads at once.

    Args:
        path: The model file.
        device: See `alserve.device.choose_device`; with "auto", a GPU that does not work is passed over.
        threads: Threads inside one call of `run`, on the CPU.

    Attributes:
        spec: The model's contract.
        sha256: Hash of the file.
        device: "cpu", "cuda:0" and so on: where it really runs.
        device_reason: Why there.

    Raises:
        ModelError: The file is missing, no model, or of a newer format.
        DeviceError: The device that was asked for cannot be used.
    """

    def __init__(self, path: Path, *, device: str = "auto", threads: int | None = None) -> None:
        chosen = choose_device(device)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: the model cannot be read: {error.strerror}") from error
        self.path = path
        self.sha256 = hashlib.sha256(data).hexdigest()
        try:
            self._session = _session(data, path, chosen, threads)
        except DeviceError as error:
            if device != "auto":
                raise
            chosen = Device("cpu", 0, str(error))
            self._session = _session(data, path, chosen, threads)
        self.device = f"cuda:{chosen.number}" if chosen.kind == "cuda" else "cpu"
        self.device_reason = chosen.reason
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


def _session(data: bytes, path: Path, device: Device, threads: int | None) -> ort.InferenceSession:
    """Open the session on the device, or raise: ONNX Runtime itself would fall back to the CPU without a word."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.log_severity_level = 4  # failures reach the user as our own errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[str | tuple[str, dict[str, str]]] = [PROVIDERS["cpu"]]
    if device.kind == "cuda":
        preload_cuda()
        cuda = {"device_id": str(device.number), "cudnn_conv_algo_search": "HEURISTIC"}
        providers.insert(0, (PROVIDERS["cuda"], cuda))
    try:
        session = ort.InferenceSession(data, options, providers=providers)
    except Exception as error:  # noqa: BLE001  ONNX Runtime raises a dozen unrelated types
        reason = str(error).splitlines()[0]
        if device.kind == "cuda" and "CUDA" in str(error):
            raise DeviceError(f"CUDA cannot be used: {reason}") from None
        raise ModelError(f"{path}: not an ONNX model that can be run ({reason})") from None
    if session.get_providers()[0] != PROVIDERS[device.kind]:
        raise DeviceError("CUDA cannot be used: ONNX Runtime fell back to the CPU; run 'alserve doctor' to see why")
    return session
