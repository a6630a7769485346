"""ONNX Runtime, on the CPU and with CUDA."""

import ctypes
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import lru_cache
from io import StringIO
from pathlib import Path
from threading import Timer
from typing import Any

from alserve.arrays import Float32, UInt8
from alserve.errors import DeviceError, ModelError
from alserve.runtime.libraries import RUNTIMES, Backend, Model, first_line, too_late
from alserve.runtime.packages import find_conflicts, fix_command, installed_packages

PACKAGES = ("onnxruntime", "onnxruntime-gpu")

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

SHAPES = 16
"""Shapes of a batch that a GPU is kept ready for: 1 to 3 s each the first time, on an H100."""


class OnnxRuntime:
    """A model in ONNX Runtime, see `alserve.runtime.libraries.Runtime`.

    With CUDA a session plans its convolutions anew whenever a batch has another shape than the one before. So each
    shape has a session of its own.

    Args:
        model: What to open.
        provider: `CPU` or `CUDA`.
        shapes: Sessions that are kept, each for one shape of a batch; with 1 all shapes have the same.

    Raises:
        ModelError: It is no model.
        DeviceError: CUDA cannot be used.
    """

    precision = "as exported"

    def __init__(self, model: Model, provider: str, shapes: int = 1) -> None:
        import onnxruntime as ort  # noqa: PLC0415  see `alserve.runtime.libraries`

        self.version = f"onnxruntime {ort.__version__}"
        options = ort.SessionOptions()
        options.intra_op_num_threads = model.threads
        options.log_severity_level = 4  # failures reach the user as our own errors
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[str | tuple[str, dict[str, str]]] = [CPU]
        if provider == CUDA:
            _preload_cuda()
            cuda = {"device_id": str(model.number), "cudnn_conv_algo_search": "HEURISTIC"}
            providers.insert(0, (CUDA, cuda))

        def open_session() -> Any:  # noqa: ANN401  ONNX Runtime has no types
            with _without_warnings() if provider == CUDA else nullcontext():
                return ort.InferenceSession(model.data, options, providers=providers)

        try:
            session = open_session()
        except Exception as error:  # noqa: BLE001  ONNX Runtime raises a dozen unrelated types
            reason = first_line(error)
            if provider == CUDA and "CUDA" in str(error):
                raise DeviceError(f"CUDA cannot be used: {reason}") from None
            raise ModelError(f"{model.path}: not an ONNX model that can be run ({reason})") from None
        if session.get_providers()[0] != provider:
            raise DeviceError("CUDA cannot be used: ONNX Runtime fell back to the CPU; run 'alserve doctor' to see why")
        self._run_options = ort.RunOptions
        self.inputs = tuple(tensor.name for tensor in session.get_inputs())
        self.outputs = tuple(tensor.name for tensor in session.get_outputs())
        self._by_shape, first = shapes > 1, iter([session])
        self._sessions = lru_cache(shapes)(lambda _shape: next(first, None) or open_session())
        if not self._by_shape:
            self._sessions(None)  # two threads that come first together would open two

    def run(self, images: UInt8, deadline: float | None = None) -> Sequence[Float32]:
        """See `alserve.runtime.libraries.Runtime.run`."""
        options = self._run_options()
        timer = None if deadline is None else _stop_later(options, deadline)
        try:
            session = self._sessions(images.shape if self._by_shape else None)
            arrays: Sequence[Float32] = session.run(None, {self.inputs[0]: images}, options)
        except Exception as error:
            if options.terminate:
                raise too_late() from None
            if not _lacks_memory(error) or self._sessions.cache_info().currsize <= 1:
                raise
            self._sessions.cache_clear()  # those of other shapes hold memory
            return self.run(images, deadline)
        finally:
            if timer:
                timer.cancel()
        return arrays


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep ONNX Runtime from telling users of a GPU that no plugin for CUDA is registered: none is needed."""
    import onnxruntime as ort  # noqa: PLC0415

    errors, warnings = 3, 2
    ort.set_default_logger_severity(errors)
    try:
        yield
    finally:
        ort.set_default_logger_severity(warnings)  # its default


def _stop_later(options: Any, deadline: float) -> Timer:  # noqa: ANN401  ONNX Runtime has no types
    """Tell a run to stop between two of its nodes once the deadline has passed."""
    timer = Timer(deadline - time.monotonic(), setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    return timer


def _lacks_memory(error: Exception) -> bool:
    return any(words in str(error) for words in ("Failed to allocate memory", "out of memory"))


def why_no_cuda() -> str | None:
    """Say what stands in the way of CUDA, and what to do; None if nothing is seen to."""
    if not _has_driver():
        return "no NVIDIA driver is loaded on this machine"
    import onnxruntime as ort  # noqa: PLC0415

    if CUDA not in ort.get_available_providers():
        beside = [names for names in find_conflicts(installed_packages()) if names[0] in PACKAGES]
        if beside:
            return f"{' beside '.join(beside[0])} overwrite each other; run: {fix_command(beside[0])}"
        return "this ONNX Runtime is built without it; run: pip install 'alserve[cuda]'"
    return _missing_library()


def _has_driver() -> bool:
    if platform.system() == "Windows":
        return (Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32" / "nvcuda.dll").exists()
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()


def _preload_cuda() -> None:
    """Load the CUDA libraries that pip installed, which the system's loader does not find; silently, if it can."""
    import onnxruntime as ort  # noqa: PLC0415

    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(StringIO()):  # it prints what it does not find
            ort.preload_dlls()


def _missing_library() -> str | None:
    """Load what ONNX Runtime would load for CUDA; return the loader's words where that fails."""
    if platform.system() != "Linux":
        return None
    import onnxruntime as ort  # noqa: PLC0415

    _preload_cuda()
    folder = Path(ort.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        words = str(error)
        return f"{words}; run: pip install 'alserve[cuda]'" if "cannot open shared object" in words else None
    return None


RUNTIMES.add("cpu")(
    Backend("the CPU, with ONNX Runtime", lambda model: OnnxRuntime(model, CPU), packages=PACKAGES, preference=0)
)
RUNTIMES.add("cuda")(
    Backend(
        "an NVIDIA GPU, with ONNX Runtime",
        lambda model: OnnxRuntime(model, CUDA, SHAPES),
        obstacle=why_no_cuda,
        packages=PACKAGES,
        numbered=True,
        preference=1,
        batch_size=16,
    )
)
