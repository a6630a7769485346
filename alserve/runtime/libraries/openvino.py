"""OpenVINO, on the CPU, in bfloat16 where the CPU computes in it."""

import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

import numpy as np

from alserve.arrays import Float32, UInt8
from alserve.errors import ModelError
from alserve.geometry import STRIDE
from alserve.runtime.libraries import RUNTIMES, Backend, Model, first_line, too_late


class OpenVino:
    """A model in OpenVINO, see `alserve.runtime.libraries.Runtime`.

    Args:
        model: What to open.

    Raises:
        ModelError: It is no model.
    """

    def __init__(self, model: Model) -> None:
        import openvino  # noqa: PLC0415  an extra

        self.version = f"openvino {openvino.__version__}"
        settings = {"NUM_STREAMS": model.callers, "INFERENCE_NUM_THREADS": model.callers * model.threads}
        try:
            self._model = openvino.compile_model(openvino.Core().read_model(model.data), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{model.path}: not an ONNX model that OpenVINO can run ({first_line(error)})") from None
        self.inputs = tuple(tensor.any_name for tensor in self._model.inputs)
        self.outputs = tuple(tensor.any_name for tensor in self._model.outputs)
        self.precision = str(self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # What OpenVINO's binding sets up on its first use it sets up here: two threads that come first together wait
        # for each other for ever, one for Python's lock, the other for that of the set-up.
        with suppress(RuntimeError):  # a network of another kind: the Engine says so
            self._model.create_infer_request().infer({0: np.zeros((1, STRIDE, STRIDE, 3), np.uint8)})

    def run(self, images: UInt8, deadline: float | None = None) -> Sequence[Float32]:
        """See `alserve.runtime.libraries.Runtime.run`."""
        with self._request() as request:
            request.start_async({0: images}, share_inputs=True)
            if deadline is None:
                request.wait()
            elif not request.wait_for(max(0, round(1000 * (deadline - time.monotonic())))):
                request.cancel()
                with suppress(RuntimeError):  # it was cancelled
                    request.wait()
                raise too_late()
            return [np.array(tensor.data) for tensor in request.output_tensors]

    @contextmanager
    def _request(self) -> Iterator[Any]:
        """Return a request that no other thread uses; it is used again afterwards."""
        try:
            request = self._requests.get_nowait()
        except queue.Empty:
            request = self._model.create_infer_request()
        yield request
        self._requests.put(request)


def why_no_openvino() -> str | None:
    """Say what stands in the way of OpenVINO, and what to do; None if nothing is seen to."""
    return "it is not installed; run: pip install 'alserve[openvino]'" if find_spec("openvino") is None else None


RUNTIMES.add("openvino")(
    Backend(
        "the CPU, with OpenVINO, in bfloat16 where the CPU computes in it",
        OpenVino,
        obstacle=why_no_openvino,
        packages=("openvino",),
        remarks={"int8": "an int8 model loses accuracy here, the fp32 file is as fast"},
    )
)
