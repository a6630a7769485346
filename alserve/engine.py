"""A model file, checked against the contract and running on one device: the one face that all else sees of it."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alserve.device import Device, choose_device
from alserve.errors import DeadlineError, DeviceError, ModelError
from alserve.modelfile import INPUT, OUTPUTS, ModelSpec, unseal
from alserve.runtimes import open_runtime

CUDA_BATCH = 16
"""Images a call on a GPU; on the CPU, where batches bring nothing, one."""

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
        device: "cpu", "cuda:0" and so on, or "openvino": where it really runs.
        device_reason: Why there.
        batch_size: Images a call that suit the device; a GPU, which settles anew for every size of batch, gets 1 or so
            many: what is missing is filled up and cut off again.
        precision: What it computes in, such as "bf16".

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
        self.spec: ModelSpec = unseal(data, str(path))
        try:
            self._runtime = open_runtime(data, path, chosen, threads)
        except DeviceError as error:
            if device != "auto":
                raise
            chosen = Device("cpu", 0, str(error))
            self._runtime = open_runtime(data, path, chosen, threads)
        self.device = f"cuda:{chosen.number}" if chosen.kind == "cuda" else chosen.kind
        self.device_reason = chosen.reason
        if chosen.kind == "openvino" and self.spec.precision == "int8":
            self.device_reason += "; an int8 model loses accuracy here, the fp32 file is as fast"
        self.batch_size = CUDA_BATCH if chosen.kind == "cuda" else 1
        self.precision = self._runtime.precision
        inputs, outputs = self._runtime.inputs, self._runtime.outputs
        if (inputs, outputs) != ((INPUT,), OUTPUTS):
            raise ModelError(
                f"{path}: takes {', '.join(inputs)} and gives {', '.join(outputs)}, "
                f"not {INPUT} and {', '.join(OUTPUTS)}; export the model again"
            )

    def run(self, images: npt.NDArray[np.uint8], *, deadline: float | None = None) -> Outputs:
        """Run one batch.

        Args:
            images: uint8 [batch, height, width, 3], RGB, height and width multiples of 32.
            deadline: Time of `time.monotonic`, in seconds, at which the network is stopped; never if left out.

        Raises:
            DeadlineError: The deadline passed.
            DeviceError: The device gave up, most often for want of memory.
        """
        count = len(images)
        if 1 < count < self.batch_size:
            images = np.concatenate([images, np.repeat(images[-1:], self.batch_size - count, axis=0)])
        try:
            return Outputs(*(output[:count] for output in self._runtime.run(images, deadline)))
        except DeadlineError:
            raise
        except Exception as error:  # noqa: BLE001  the libraries raise a dozen unrelated types
            raise DeviceError(
                f"{self.path.name} failed on {self.device} with a batch of shape {images.shape}: "
                f"{str(error).splitlines()[0]}; try a smaller batch"
            ) from None
