"""From an image's bytes to an answer: decode, run, encode, in one of a few threads, with a limit on what waits."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import TypeVar

from anyio import CapacityLimiter, Semaphore, fail_after, to_thread

from alserve.errors import AlserveError, DeadlineError, ImageSizeError, OverloadError
from alserve.geometry import resize, working_shape
from alserve.images.decoders import Decoded, Decoders
from alserve.predictor import Prediction
from alserve.runtime.engine import Engine
from alserve.service.batching import Batcher
from alserve.service.metrics import BATCH_IMAGES, DECODE, ENCODE, IMAGE_ERRORS, IMAGES, INFERENCE, QUEUE, timed
from alserve.service.settings import ServiceSettings

Built = TypeVar("Built")


class Pipeline:
    """Predicts images and builds answers; made and used in one event loop.

    On the CPU as many images are worked on at once as there are cores: one that is alone gets all of them for its
    network call, one among others a single one, which makes more images a second. Where the network is called with
    batches, twice as many images as a batch holds, so that the next one gathers while one runs.

    Args:
        engine: The loaded model, with all cores.
        settings: Limits.
        single: The same with one core. Default: `engine`.
    """

    def __init__(self, engine: Engine, settings: ServiceSettings, single: Engine | None = None) -> None:
        batch = settings.batch or engine.batch_size
        threads = settings.cores if batch == 1 else 2 * batch
        self.engine = engine
        self._alone = Batcher(engine, batch)
        self._among_others = Batcher(single, 1) if single and batch == 1 else self._alone
        self._limiter = CapacityLimiter(threads)
        self._decoders = Decoders(min(threads, settings.cores), settings.decode_timeout, spare=1)
        self._capacity = self._free = threads + settings.waiting_images
        self._timeout = settings.timeout

    def check_capacity(self) -> None:
        """Refuse a request before its body is read; `reserve` counts its images afterwards.

        Raises:
            OverloadError: No further image is let in.
        """
        if self._free <= 0:
            raise OverloadError("too many requests are waiting; try again later")

    @contextmanager
    def reserve(self, images: int = 1) -> Iterator[None]:
        """Let the images of a request in, all or none, and count them for the time of the block.

        Args:
            images: Their number.

        Raises:
            ImageSizeError: There are more than are ever let in together.
            OverloadError: There are more than can be let in now.
        """
        if images > self._capacity:
            raise ImageSizeError(
                f"{images} images in one request, and at most {self._capacity} are taken in at once; "
                "send fewer, or raise ALSERVE_QUEUE where the service is started"
            )
        if images > self._free:
            raise OverloadError("too many requests are waiting; try again later")
        self._free -= images
        try:
            yield
        finally:
            self._free += images

    def share(self) -> Semaphore:
        """Return a limit for the images of one request: as many of them at once as there are threads.

        So the images of other requests need not wait for all of them.
        """
        return Semaphore(int(self._limiter.total_tokens))

    async def predict(
        self,
        data: bytes | Callable[[], bytes],
        build: Callable[[Decoded, Prediction], Built],
        *,
        whole: bool = False,
        share: AbstractAsyncContextManager[object] | None = None,
    ) -> Built:
        """Decode an image, run the network, and build an answer.

        Args:
            data: The bytes of an image file, or what reads them; called in a thread.
            build: Makes the answer of the image, at the working size unless `whole`, and its prediction; called in a
                thread.
            whole: Whether the answer is made of the image itself, too, at its own size.
            share: The `share` of a request with several images.

        Raises:
            ImageError: The bytes are no usable image.
            DeadlineError: There was no more time; the network was stopped, or not begun.
            DeviceError: The device gave up.
        """
        arrived = time.monotonic()
        try:
            with fail_after(self._timeout):
                async with share or nullcontext():
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

    def _work(
        self,
        data: bytes | Callable[[], bytes],
        build: Callable[[Decoded, Prediction], Built],
        whole: bool,  # noqa: FBT001
        arrived: float,
    ) -> Built:
        begun = time.monotonic()
        with timed(DECODE):
            short_side = self.engine.spec.short_side
            decoded = self._decoders.decode(
                data if isinstance(data, bytes) else data(),
                short_side=0 if whole else short_side,
                seconds=arrived + self._timeout - begun,
            )
            image = resize(decoded.pixels, working_shape(decoded.height, decoded.width, short_side))
        ready = time.monotonic()
        batcher = self._alone if self._limiter.borrowed_tokens == 1 else self._among_others
        outputs, seconds, images = batcher.run(image, arrived + self._timeout)
        QUEUE.observe(begun - arrived + time.monotonic() - ready - seconds)
        INFERENCE.observe(seconds)
        BATCH_IMAGES.observe(images)
        if time.monotonic() > arrived + self._timeout:
            raise DeadlineError("nobody waits for the answer any more")
        spec, height, width = self.engine.spec, decoded.height, decoded.width
        prediction = Prediction(spec, height, width, outputs.scores, outputs.mask, outputs.cams)
        with timed(ENCODE):
            built = build(decoded, prediction)
        IMAGES.labels(prediction.label).inc()
        return built
