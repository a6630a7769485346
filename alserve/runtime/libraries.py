"""The libraries that run a model file: ONNX Runtime, on the CPU or with CUDA, and OpenVINO, on the CPU.

Each opens the bytes of a model on one device or raises; none falls back to another one without a word.
"""

import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from alserve.arrays import Float32, UInt8
from alserve.errors import DeadlineError, DeviceError, ModelError
from alserve.geometry import STRIDE
from alserve.runtime.device import PROVIDERS, Device, available_cores, preload_cuda


class Runtime(Protocol):
    """A model that is loaded and ready; `run` may be called from many threads at once."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    precision: str
    """What the network computes in, where the library chooses that; else "as exported"."""
    version: str
    """The library's name and version."""

    def run(self, images: UInt8, deadline: float | None = None) -> Sequence[Float32]:
        """Run one batch.

        Args:
            images: uint8 [batch, height, width, 3].
            deadline: Time of `time.monotonic`, in seconds, at which the run is stopped.

        Returns:
            The outputs in the file's order.

        Raises:
            DeadlineError: The deadline passed.
        """


def open_runtime(data: bytes, path: Path, device: Device, threads: int | None) -> Runtime:
    """Open a model.

    Args:
        data: The model file.
        path: Where it came from, for messages.
        device: Where to run it.
        threads: Threads inside one call, on the CPU. Default: the cores this process may use.

    Raises:
        ModelError: It is no model.
        DeviceError: The device cannot be used.
    """
    kind = OpenVino if device.kind == "openvino" else OnnxRuntime
    return kind(data, path, device, threads or available_cores())


class OnnxRuntime:
    """A model in ONNX Runtime."""

    precision = "as exported"
    version = f"onnxruntime {ort.__version__}"

    def __init__(self, data: bytes, path: Path, device: Device, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # failures reach the user as our own errors
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[str | tuple[str, dict[str, str]]] = [PROVIDERS["cpu"]]
        if device.kind == "cuda":
            preload_cuda()
            cuda = {"device_id": str(device.number), "cudnn_conv_algo_search": "HEURISTIC"}
            providers.insert(0, (PROVIDERS["cuda"], cuda))
        try:
            self._session = ort.InferenceSession(data, options, providers=providers)
        except Exception as error:  # noqa: BLE001  ONNX Runtime raises a dozen unrelated types
            reason = _first_line(error)
            if device.kind == "cuda" and "CUDA" in str(error):
                raise DeviceError(f"CUDA cannot be used: {reason}") from None
            raise ModelError(f"{path}: not an ONNX model that can be run ({reason})") from None
        if self._session.get_providers()[0] != PROVIDERS[device.kind]:
            raise DeviceError("CUDA cannot be used: ONNX Runtime fell back to the CPU; run 'alserve doctor' to see why")
        self.inputs = tuple(tensor.name for tensor in self._session.get_inputs())
        self.outputs = tuple(tensor.name for tensor in self._session.get_outputs())

    def run(self, images: UInt8, deadline: float | None = None) -> Sequence[Float32]:
        """See `Runtime.run`."""
        options = ort.RunOptions()
        timer = None if deadline is None else _stop_later(options, deadline)
        try:
            arrays: Sequence[Float32] = self._session.run(None, {self.inputs[0]: images}, options)
        except Exception:
            if options.terminate:
                raise _too_late() from None
            raise
        finally:
            if timer:
                timer.cancel()
        return arrays


class OpenVino:
    """A model in OpenVINO, in bfloat16 where the CPU computes in it."""

    def __init__(self, data: bytes, path: Path, _device: Device, threads: int) -> None:
        import openvino  # noqa: PLC0415  an extra

        self.version = f"openvino {openvino.__version__}"
        callers = max(1, available_cores() // threads)
        settings = {"NUM_STREAMS": callers, "INFERENCE_NUM_THREADS": callers * threads}
        try:
            self._model = openvino.compile_model(openvino.Core().read_model(data), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{path}: not an ONNX model that OpenVINO can run ({_first_line(error)})") from None
        self.inputs = tuple(tensor.any_name for tensor in self._model.inputs)
        self.outputs = tuple(tensor.any_name for tensor in self._model.outputs)
        self.precision = str(self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # What OpenVINO's binding sets up on its first use it sets up here: two threads that come first together wait
        # for each other for ever, one for Python's lock, the other for that of the set-up.
        with suppress(RuntimeError):  # a network of another kind: the Engine says so
            self._model.create_infer_request().infer({0: np.zeros((1, STRIDE, STRIDE, 3), np.uint8)})

    def run(self, images: UInt8, deadline: float | None = None) -> Sequence[Float32]:
        """See `Runtime.run`."""
        with self._request() as request:
            request.start_async({0: images}, share_inputs=True)
            if deadline is None:
                request.wait()
            elif not request.wait_for(max(0, round(1000 * (deadline - time.monotonic())))):
                request.cancel()
                with suppress(RuntimeError):  # it was cancelled
                    request.wait()
                raise _too_late()
            return [np.array(tensor.data) for tensor in request.output_tensors]

    @contextmanager
    def _request(self) -> Iterator[Any]:
        """Lend a request that no other thread uses."""
        try:
            request = self._requests.get_nowait()
        except queue.Empty:
            request = self._model.create_infer_request()
        yield request
        self._requests.put(request)


def _stop_later(options: ort.RunOptions, deadline: float) -> Timer:
    """Tell a run to stop between two of its nodes once the deadline has passed."""
    timer = Timer(deadline - time.monotonic(), setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    return timer


def _too_late() -> DeadlineError:
    return DeadlineError("the network was stopped: there was no more time")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
