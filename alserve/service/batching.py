"""Network calls for many callers: one image a call, or those that wait, together."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from alserve.arrays import Image
from alserve.errors import DeviceError
from alserve.modelfile import Outputs
from alserve.runtime.engine import Engine


class BatchResult(NamedTuple):
    """What the network computed for one image."""

    outputs: Outputs
    """Without the batch axis."""
    seconds: float
    """How long the network call took."""
    images: int
    """Number of images in that call."""


@dataclass(eq=False)
class _QueuedImage:
    image: Image
    deadline: float
    future: Future[BatchResult] = field(default_factory=Future)


class Batcher:
    """Runs images through the network, those that wait together; `run` is called from many threads at once.

    Nothing waits for a batch to fill: while one runs, others gather, and the next call takes them all. An image
    that makes a call fail is found by running each alone, so that its neighbours do not notice.

    Args:
        engine: The loaded model.
        size: Most images in a call. With 1 every caller's own thread runs the network.
    """

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine = engine
        self._size = size
        self._waiting: deque[_QueuedImage] = deque()
        self._caller = ThreadPoolExecutor(1, "batcher")  # only its thread takes from `_waiting`

    def run(self, image: Image, deadline: float) -> BatchResult:
        """Run one image.

        Args:
            image: uint8 [height, width, 3], RGB, height and width multiples of 32.
            deadline: Time of `time.monotonic`, in seconds, after which the result is of no use.

        Raises:
            DeadlineError: The deadline passed.
            DeviceError: The device gave up.
        """
        queued = _QueuedImage(image, deadline)
        if self._size == 1:
            self._call([queued])
        else:
            self._waiting.append(queued)
            self._caller.submit(self._take)
        return queued.future.result()

    def _take(self) -> None:
        """Call the network for the first that waits and those of its shape; an earlier call may have taken all."""
        if not self._waiting:
            return
        shape = self._waiting[0].image.shape
        batch = [queued for queued in tuple(self._waiting) if queued.image.shape == shape][: self._size]
        for queued in batch:
            self._waiting.remove(queued)
        self._call(batch)

    def _call(self, batch: list[_QueuedImage]) -> None:
        start = time.perf_counter()
        try:
            outputs = self._engine.run(
                np.stack([queued.image for queued in batch]), deadline=max(queued.deadline for queued in batch)
            )
        except Exception as error:  # noqa: BLE001  it is raised where the result is waited for
            if isinstance(error, DeviceError) and len(batch) > 1:
                for queued in batch:
                    self._call([queued])
            else:
                for queued in batch:
                    queued.future.set_exception(error)
            return
        seconds = time.perf_counter() - start
        for index, queued in enumerate(batch):
            queued.future.set_result(BatchResult(Outputs(*(output[index] for output in outputs)), seconds, len(batch)))
