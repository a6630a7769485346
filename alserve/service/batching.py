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


class Answer(NamedTuple):
    """What the network gives for one image."""

    outputs: Outputs
    """Without the batch axis."""
    seconds: float
    """How long the network call took."""
    batch: int
    """Images in that call."""


@dataclass(eq=False)
class _Job:
    image: Image
    deadline: float
    answer: Future[Answer] = field(default_factory=Future)


class Batcher:
    """Runs images through the network; `run` is called from many threads at once.

    Nothing waits for a batch to fill: while one runs, others gather, and the next call takes them all. An image
    that makes a call fail is found by running each alone, so that its neighbours do not notice.

    Args:
        engine: The loaded model.
        size: Images a call at most. With 1 every caller's own thread runs the network.
    """

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine = engine
        self._size = size
        self._waiting: deque[_Job] = deque()
        self._caller = ThreadPoolExecutor(1, "batcher")  # only its thread takes from `_waiting`

    def run(self, image: Image, deadline: float) -> Answer:
        """Run one image.

        Args:
            image: uint8 [height, width, 3], RGB, height and width multiples of 32.
            deadline: Time of `time.monotonic`, in seconds, after which the answer is of no use.

        Raises:
            DeadlineError: The deadline passed.
            DeviceError: The device gave up.
        """
        job = _Job(image, deadline)
        if self._size == 1:
            self._call([job])
        else:
            self._waiting.append(job)
            self._caller.submit(self._take)
        return job.answer.result()

    def _take(self) -> None:
        """Call the network for the first that waits and those of its shape; an earlier call may have taken all."""
        if not self._waiting:
            return
        shape = self._waiting[0].image.shape
        batch = [job for job in tuple(self._waiting) if job.image.shape == shape][: self._size]
        for job in batch:
            self._waiting.remove(job)
        self._call(batch)

    def _call(self, batch: list[_Job]) -> None:
        start = time.perf_counter()
        try:
            outputs = self._engine.run(
                np.stack([job.image for job in batch]), deadline=max(job.deadline for job in batch)
            )
        except Exception as error:  # noqa: BLE001  it is raised where the answer is waited for
            if isinstance(error, DeviceError) and len(batch) > 1:
                for job in batch:
                    self._call([job])
            else:
                for job in batch:
                    job.answer.set_exception(error)
            return
        seconds = time.perf_counter() - start
        for index, job in enumerate(batch):
            job.answer.set_result(Answer(Outputs(*(output[index] for output in outputs)), seconds, len(batch)))
