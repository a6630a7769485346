"""From an image's bytes to an answer: decode, run, encode, in one of a few threads, and with a limit on who waits."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import NamedTuple, TypeVar

from anyio import CapacityLimiter, Semaphore, fail_after, to_thread

from alserve.arrays import UInt8
from alserve.errors import AlserveError, DeadlineError, ImageSizeError, OverloadError
from alserve.geometry import resize, working_shape
from alserve.images.decoders import Decoders
from alserve.predictor import Prediction
from alserve.runtime.engine import Engine
from alserve.service.batching import Batcher
from alserve.service.metrics import BATCH_IMAGES, DECODE, ENCODE, IMAGE_ERRORS, IMAGES, INFERENCE, QUEUE, timed
from alserve.service.settings import Settings

Built = TypeVar("Built")


class Case(NamedTuple):
    """All that an answer is made of."""

    image: UInt8
    """uint8 [height, width, 3], RGB, upright; at the working size where it was not asked for as a whole."""
    prediction: Prediction
    """What the model says of it."""
    warning: str | None
    """What a user should know of how the image was read."""


class Pipeline:
    """Takes images in and gives answers; made and used in one event loop.

    On the CPU as many images are worked on at once as there are cores: one that is alone gets all of them for its
    network call, one among others a single one, which makes more images a second. Where the network is called with
    batches, twice as many images as a batch holds, so that the next one gathers while one runs.

    Args:
        engine: The loaded model, with all cores.
        settings: Limits.
        single: The same with one core. Default: `engine`.
    """

    def __init__(self, engine: Engine, settings: Settings, single: Engine | None = None) -> None:
        batch = settings.batch or engine.batch_size
        threads = settings.cores if batch == 1 else 2 * batch
        self.engine = engine
        self._alone = Batcher(engine, batch)
        self._among_others = Batcher(single, 1) if single and batch == 1 else self._alone
        self._limiter = CapacityLimiter(threads)
        self._decoders = Decoders(min(threads, settings.cores), settings.decode_timeout, spare=1)
        self._places = self._free = threads + settings.places
        self._timeout = settings.timeout

    def check_room(self) -> None:
        """Refuse a request while its body is not read yet; it takes its place afterwards.

        Raises:
            OverloadError: There is no place left.
        """
        if self._free <= 0:
            raise OverloadError("too many requests are waiting; try again later")

    @contextmanager
    def admitted(self, images: int = 1) -> Iterator[None]:
        """Hold a place for each image of a request, or for none of them.

        Args:
            images: How many.

        Raises:
            ImageSizeError: There would never be so many places.
            OverloadError: There are not so many places left.
        """
        if images > self._places:
            raise ImageSizeError(
                f"{images} images in one request, and there are {self._places} places; "
                "send fewer, or raise ALSERVE_QUEUE where the service is started"
            )
        if images > self._free:
            raise OverloadError("too many requests are waiting; try again later")
        self._free -= images
        try:
            yield
        finally:
            self._free += images

    def turns(self) -> Semaphore:
        """Return what lets the images of one request in by turns, as many at once as are worked on."""
        return Semaphore(int(self._limiter.total_tokens))

    async def answer(
        self,
        data: bytes,
        build: Callable[[Case], Built],
        *,
        whole: bool = False,
        turns: AbstractAsyncContextManager[object] | None = None,
    ) -> Built:
        """Decode an image, run the network, and build an answer.

        Args:
            data: The bytes of an image file.
            build: Makes the answer; called in a thread.
            whole: Whether it is made of the image itself, too.
            turns: Of a request with other images: those of others need not wait for all of them.

        Raises:
            ImageError: The bytes are no usable image.
            DeadlineError: There was no more time; the network was stopped, or not begun.
            DeviceError: The device gave up.
        """
        arrived = time.monotonic()
        try:
            with fail_after(self._timeout):
                async with turns or nullcontext():
                    return await to_thread.run_sync(self._work, data, build, whole, arrived, limiter=self._limiter)
        except (TimeoutError, DeadlineError):
            IMAGE_ERRORS.labels(DeadlineError.__name__).inc()
            raise DeadlineError(f"no answer within {self._timeout:g} s; try again, or with a smaller image") from None
        except AlserveError as error:
            IMAGE_ERRORS.labels(type(error).__name__).inc()
            raise

    def close(self) -> None:
        """End the processes that decode images."""
        self._decoders.close()

    def _work(self, data: bytes, build: Callable[[Case], Built], whole: bool, arrived: float) -> Built:  # noqa: FBT001
        begun = time.monotonic()
        with timed(DECODE):
            short_side = self.engine.spec.short_side
            image, warning, height, width = self._decoders.decode(
                data, short_side=0 if whole else short_side, seconds=arrived + self._timeout - begun
            )
            small = resize(image, working_shape(height, width, short_side))
        decoded = time.monotonic()
        batcher = self._alone if self._limiter.borrowed_tokens == 1 else self._among_others
        outputs, seconds, batch = batcher.run(small, arrived + self._timeout)
        QUEUE.observe(begun - arrived + time.monotonic() - decoded - seconds)
        INFERENCE.observe(seconds)
        BATCH_IMAGES.observe(batch)
        if time.monotonic() > arrived + self._timeout:
            raise DeadlineError("nobody waits for the answer any more")
        prediction = Prediction(self.engine.spec, height, width, outputs.scores, outputs.mask, outputs.cams)
        with timed(ENCODE):
            built = build(Case(image, prediction, warning))
        IMAGES.labels(prediction.label).inc()
        return built
