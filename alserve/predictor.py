"""Images in, predictions out: one, several, or a stream of them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, cast, overload

import numpy as np

from alserve.arrays import Image
from alserve.errors import ImageError, OptionError
from alserve.geometry import resize, working_shape
from alserve.images.inputs import ImageInput, is_image, path_of, pixels_of
from alserve.modelfile import ModelSpec, Outputs
from alserve.parallel import ordered_map
from alserve.places.urls import Location
from alserve.prediction import Failure, Prediction
from alserve.runtime.device import available_cores
from alserve.runtime.engine import Engine
from alserve.tiling import Tiling, run_tiled

__all__ = ["Failure", "ImageInput", "Prediction", "Predictor", "load"]


class Predictor:
    """Run a model on images of any size.

    Args:
        engine: The loaded model.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def spec(self) -> ModelSpec:
        """The model's contract: classes, threshold, provenance."""
        return self.engine.spec

    @overload
    def predict(  # type: ignore[overload-overlap]  # str and bytes are sequences too
        self, images: ImageInput, *, tiling: Tiling | None = None
    ) -> Prediction: ...

    @overload
    def predict(self, images: Iterable[ImageInput], *, tiling: Tiling | None = None) -> list[Prediction]: ...

    def predict(
        self, images: ImageInput | Iterable[ImageInput], *, tiling: Tiling | None = None
    ) -> Prediction | list[Prediction]:
        """Predict one image or several; those that share a working shape go through the network together.

        Args:
            images: One, or several; each a path, the bytes of a file, a Pillow image or an array, see `ImageInput`.
            tiling: Cut large images into tiles.

        Returns:
            One prediction for one image; a list, in order, for several.

        Raises:
            ImageError: A file cannot be read, or what was passed is no image; the message says which.
            DeviceError: The device gave up, most often for want of memory.

        Example:
            >>> predictor.predict("tissue.png").label
            'benign'
        """
        if is_image(images):
            return self._predict([(images, _read(images))], tiling)[0]
        several = cast("Iterable[ImageInput]", images)
        return self._predict([(image, _read(image, index)) for index, image in enumerate(several)], tiling)

    @overload
    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        tiling: Tiling | None = None,
        on_error: None = None,
    ) -> Iterator[Prediction | Failure]: ...

    @overload
    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        tiling: Tiling | None = None,
        on_error: Literal["raise"],
    ) -> Iterator[Prediction]: ...

    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        tiling: Tiling | None = None,
        on_error: Literal["raise"] | None = None,
    ) -> Iterator[Prediction | Failure]:
        """Predict images as they come, several at once, with results in order and bounded memory.

        There is one result for every image: where one cannot be used, the others go on, and a `Failure` takes its
        place. Best with a model loaded with `threads=1`: then each worker uses one core.

        Args:
            images: Each as for `predict`; drawn as the results are taken.
            workers: Images or batches worked on at once. Default: the cores this process may use.
            batch_size: Images a network call. Default: `Engine.batch_size`.
            tiling: Cut large images into tiles.
            on_error: "raise" to end the stream at the first image that cannot be used.

        Yields:
            One prediction, or failure, an image.

        Raises:
            ImageError: With `on_error="raise"`, an image cannot be used.
            DeviceError: The device gave up, most often for want of memory.

        Example:
            >>> for result in predictor.stream(Path("slides").glob("*.png")):
            ...     print(result.path, result.error if isinstance(result, Failure) else result.label)
        """
        if on_error not in {None, "raise"}:
            raise OptionError(f'on_error {on_error!r}: give "raise", or None for failures among the results')
        if is_image(images):
            raise OptionError("a stream is of several images; pass a list, or call predict for one")
        source = enumerate(images)
        batches = iter(lambda: list(islice(source, batch_size or self.engine.batch_size)), [])

        def work(batch: Sequence[tuple[int, ImageInput]]) -> list[Prediction | Failure]:
            results: dict[int, Prediction | Failure] = {}
            read: dict[int, tuple[ImageInput, Image]] = {}
            for index, image in batch:
                try:
                    read[index] = image, _read(image, index)
                except ImageError as error:
                    if on_error == "raise":
                        raise
                    results[index] = Failure(path_of(image), index, error)
            results.update(zip(read, self._predict(list(read.values()), tiling), strict=True))
            return [results[index] for index, _ in batch]

        for results in ordered_map(work, batches, workers or available_cores()):
            yield from results

    def _predict(self, images: Sequence[tuple[ImageInput, Image]], tiling: Tiling | None) -> list[Prediction]:
        """Predict images, each with what was passed for it."""
        found: dict[int, Outputs] = {}
        buckets: dict[tuple[int, int], list[int]] = {}
        for index, (_, image) in enumerate(images):
            height, width = image.shape[:2]
            if tiling is not None and tiling.applies(height, width):
                found[index] = run_tiled(self.engine, image, tiling, self.engine.batch_size)
            else:
                buckets.setdefault(working_shape(height, width, self.spec.short_side), []).append(index)
        for shape, members in buckets.items():
            outputs = self.engine.run(np.stack([resize(images[index][1], shape) for index in members]))
            for position, index in enumerate(members):
                found[index] = Outputs(*(output[position] for output in outputs))
        predictions = []
        for index, (source, image) in enumerate(images):
            (height, width), (scores, cams, mask) = image.shape[:2], found[index]
            predictions.append(Prediction(self.spec, height, width, scores, mask, cams, source))
        return predictions


def _read(image: ImageInput, index: int | None = None) -> Image:
    """Return an image's pixels; an error names the image by its path, or else by its place among several."""
    try:
        return pixels_of(image)
    except ImageError as error:
        if index is None or path_of(image) is not None:
            raise
        raise type(error)(f"image {index}: {error}") from None


def load(path: Location, *, device: str = "auto", threads: int | None = None, self_check: bool = True) -> Predictor:
    """Load a model file.

    Args:
        path: The model file, or its URL in an object store.
        device: "auto", "cpu", "cuda", "cuda:N" or "openvino".
        threads: Threads inside one prediction. Default: the cores this process may use.
        self_check: Compare the model with the answers of the trained network that it carries; what passed once on
            this machine is not compared again.

    Raises:
        ModelError: The file is missing, no model, of a newer format, or gives something else than it should.
        DeviceError: The device that was asked for cannot be used.

    Example:
        >>> predictor = alserve.load("tissue.onnx", device="cpu")
    """
    return Predictor(Engine(path, device=device, threads=threads, self_check=self_check))
