"""A model file, checked against the contract and running on one device: what all other code uses to run a model."""

import hashlib
import time
from pathlib import Path

import numpy as np

from alserve.arrays import UInt8
from alserve.errors import DeadlineError, DeviceError, ModelError
from alserve.modelfile import INPUT, OUTPUTS, Outputs, read_metadata, read_model
from alserve.places.urls import Location
from alserve.runtime.device import AUTO, Device, available_cores, choose_device
from alserve.runtime.libraries import Model, Runtime
from alserve.runtime.selfcheck import Deviation, PassedCheck, exceeded, limits_of, measure, try_drawn_image

CHECK_SECONDS = 60
"""Time that a small image may take while a model is checked: there are networks that never end."""


class Engine:
    """A model file, loaded and ready on one device; `run` may be called from many threads at once.

    Args:
        path: The model file, or its URL in an object store.
        device: See `alserve.runtime.device.choose_device`; with "auto", a GPU that does not work is passed over.
        threads: Threads inside one call of `run`, on the CPU.
        self_check: Compare the model with the answers that it carries, see `alserve.runtime.selfcheck`.

    Attributes:
        location: The model file as it was named.
        path: The same as a path; its name and suffix are those of the file.
        spec: The model's contract.
        references: Images with the trained network's answers; none in older files, and where they were left out.
        sha256: Hash of the file.
        device: "cpu", "cuda:0", "openvino" and so on: where it really runs.
        device_reason: Why there.
        batch_size: Images a call that suit the device; a GPU, which settles anew for every size of batch, gets 1 or so
            many: what is missing is filled up and cut off again.
        precision: What it computes in, such as "bf16".
        unchecked: Why it was not compared with the trained network; None if it was, now or before.

    Raises:
        ModelError: The file is missing, no model, of a newer format, or returns something else than it should.
        DeviceError: The device that was asked for cannot be used.
    """

    def __init__(
        self, path: Location, *, device: str = "auto", threads: int | None = None, self_check: bool = True
    ) -> None:
        data = read_model(path)
        self.path = Path(path)
        self.location = path  # a URL as a path would lose a slash
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.spec, self.references = read_metadata(data, str(path))
        chosen, self._runtime = _open(data, self.path, device, threads or available_cores())
        self.device = str(chosen)
        remark = chosen.backend.remarks.get(self.spec.precision)
        self.device_reason = f"{chosen.reason}; {remark}" if remark else chosen.reason
        self.batch_size = chosen.backend.batch_size
        self.precision = self._runtime.precision
        inputs, outputs = self._runtime.inputs, self._runtime.outputs
        if (inputs, outputs) != ((INPUT,), OUTPUTS):
            raise ModelError(
                f"{path}: takes {', '.join(inputs)} and gives {', '.join(outputs)}, "
                f"not {INPUT} and {', '.join(OUTPUTS)}; export the model again"
            )
        self.unchecked: str | None = None
        if not self_check:
            self.unchecked = f"{path}: was not checked, as asked for"
        else:
            if not self.references:
                self.unchecked = (
                    f"{path}: carries no reference images, so nobody knows whether it computes here what was trained"
                )
            self._check()

    def _check(self) -> None:
        """Refuse a model whose answers here are not those of the trained network."""
        limits = limits_of(self.spec, self.precision)
        passed = PassedCheck(self.sha256, self.device, self._runtime.version, self.precision, str(limits))
        if passed.is_noted():
            return
        if not self.references:
            try_drawn_image(self._try, self.spec, self.where)
        elif reason := exceeded(self.deviation(), limits):
            raise ModelError(
                f"{self.where}: gives something else than the trained network: {reason}; try another device or the "
                "fp32 file, or take it as it is with --no-self-check (service: ALSERVE_SELF_CHECK=no)"
            )
        passed.note()

    @property
    def where(self) -> str:
        """Model and device, for messages."""
        return f"{self.location} on {self.device}"

    def deviation(self) -> Deviation:
        """Compare the model with the answers that it carries; it must carry some.

        Raises:
            ModelError: The outputs have other shapes than they should, or are not finite, or no probabilities.
            DeviceError: The device gave up.
        """
        return measure(self._try, self.spec, self.references, self.where)

    def _try(self, images: UInt8) -> Outputs:
        try:
            return self.run(images, deadline=time.monotonic() + CHECK_SECONDS)
        except DeadlineError:
            raise ModelError(
                f"{self.where}: gives no answer within {CHECK_SECONDS} s; export the model again"
            ) from None

    def run(self, images: UInt8, *, deadline: float | None = None) -> Outputs:
        """Run one batch.

        Args:
            images: uint8 [batch, height, width, 3], RGB, height and width multiples of 32.
            deadline: Time of `time.monotonic`, in seconds, at which the network is stopped. Default: never.

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


def _open(data: bytes, path: Path, device: str, threads: int) -> tuple[Device, Runtime]:
    """Open a model on the device that was asked for; with "auto", on the first that works."""
    failed: dict[str, str] = {}
    callers = max(1, available_cores() // threads)
    while True:
        chosen = choose_device(device, failed)
        try:
            return chosen, chosen.backend.open(Model(data, path, chosen.number, threads, callers))
        except DeviceError as error:
            if device != AUTO:
                raise
            failed[chosen.name] = str(error)
