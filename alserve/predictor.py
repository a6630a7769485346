"""Images in, predictions out: the working-size arrays of the network, and full-size views of them on demand."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from alserve.arrays import Float32, Image, Mask
from alserve.errors import ImageError
from alserve.geometry import enlarged, resize, working_shape
from alserve.images.codec import decode, read_image, to_grey
from alserve.modelfile import ModelSpec, Outputs
from alserve.parallel import ordered_map
from alserve.runtime.device import available_cores
from alserve.runtime.engine import Engine
from alserve.tiling import Tiling, run_tiled

ImageInput = Image | str | Path | bytes
"""An image: uint8 [height, width, 3], RGB, of any size; or the path, or the bytes, of an image file."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says of one image; `mask`, `probability` and `cam` have the image's own size."""

    spec: ModelSpec
    height: int
    """Rows of the image, in pixels."""
    width: int
    """Columns of the image, in pixels."""
    class_scores: Float32
    """[classes], softmax, 0 to 1, in the order of `spec.classes`."""
    working_probability: Float32
    """[working height, working width], foreground probability at the network's own size."""
    working_cams: Float32
    """[classes, h, w], class activations at the encoder's last stride."""

    @property
    def label(self) -> str:
        """The class with the highest score."""
        return self.spec.classes[int(self.class_scores.argmax())]

    @property
    def scores(self) -> dict[str, float]:
        """Score by class name, 0 to 1, sum 1."""
        return {name: float(score) for name, score in zip(self.spec.classes, self.class_scores, strict=True)}

    def probability(self) -> Float32:
        """Foreground probability at the image's own size: float32 [height, width], 0 to 1."""
        return self._full_size(self.working_probability, lambda band: band, np.float32)

    def mask(self, threshold: float | None = None) -> Mask:
        """Foreground at the image's own size: bool [height, width].

        Args:
            threshold: Probability, 0 to 1, above which a pixel is foreground. Default: the model's own.
        """
        above = self.spec.threshold if threshold is None else threshold
        return self._full_size(self.working_probability, lambda band: band > above, np.bool_)

    def cam(self, label: str | None = None) -> Float32:
        """Class activation map at the image's own size: float32 [height, width], 0 to 1.

        The scale is the model's `cam_range`, the same for all images, so that maps can be compared.

        Args:
            label: The class. Default: the predicted one.

        Raises:
            ValueError: The model has no such class.
        """
        return self._full_size(self._scaled_cam(label), lambda band: band, np.float32)

    def cam_grey(self, label: str | None = None) -> Image:
        """Class activation map as grey levels: uint8 [height, width], see `cam`."""
        return self._full_size(self._scaled_cam(label), to_grey, np.uint8)

    def _scaled_cam(self, label: str | None) -> Float32:
        index = self.spec.classes.index(self.label if label is None else label)
        low, high = self.spec.cam_range
        scaled: Float32 = np.clip((self.working_cams[index] - low) / ((high - low) or 1), 0, 1)
        return scaled

    def _full_size(self, array: Float32, finish: Callable[[Any], Any], dtype: type) -> npt.NDArray[Any]:
        """Bring a map to the image's own size, each band of it finished before the next is made."""
        whole: npt.NDArray[Any] = np.empty((self.height, self.width), dtype)
        for top, band in enlarged(array, whole.shape):
            whole[top : top + len(band)] = finish(band)
        return whole


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
    def predict(self, images: Sequence[ImageInput], *, tiling: Tiling | None = None) -> list[Prediction]: ...

    def predict(
        self, images: ImageInput | Sequence[ImageInput], *, tiling: Tiling | None = None
    ) -> Prediction | list[Prediction]:
        """Predict one image or several; those that share a working shape go through the network together.

        Args:
            images: One, or a sequence; each as pixels, path or bytes, see `ImageInput`.
            tiling: Cut large images into tiles.

        Returns:
            One prediction for one image; a list, in order, for a sequence.

        Raises:
            ImageError: A file cannot be read, or is no image; of several, the message says which.
            DeviceError: The device gave up, most often for want of memory.
        """
        if isinstance(images, np.ndarray | str | Path | bytes):
            return self._predict([_pixels(images)], tiling)[0]
        pixels = []
        for index, image in enumerate(images):
            try:
                pixels.append(_pixels(image))
            except ImageError as error:
                name = image if isinstance(image, str | Path) else f"image {index}"
                raise ImageError(f"{name}: {error}") from None
        return self._predict(pixels, tiling)

    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        tiling: Tiling | None = None,
    ) -> Iterator[Prediction]:
        """Predict images as they come, several at once, with results in order and bounded memory.

        Best with a model loaded with `threads=1`: then each worker uses one core.

        Args:
            images: Each as pixels, path or bytes; drawn as the results are taken.
            workers: Images or batches worked on at once. Default: the cores this process may use.
            batch_size: Images a network call. Default: `Engine.batch_size`.
            tiling: Cut large images into tiles.

        Yields:
            One prediction an image.

        Raises:
            ImageError: A file cannot be read, or is no image; the stream ends there.
        """
        size = batch_size or self.engine.batch_size
        source = iter(images)
        batches = iter(lambda: list(islice(source, size)), [])
        for predictions in ordered_map(
            lambda batch: self.predict(batch, tiling=tiling), batches, workers or available_cores()
        ):
            yield from predictions

    def _predict(self, images: Sequence[Image], tiling: Tiling | None) -> list[Prediction]:
        found: dict[int, Prediction] = {}
        buckets: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            height, width = image.shape[:2]
            if tiling is not None and tiling.applies(height, width):
                found[index] = self._prediction(image, run_tiled(self.engine, image, tiling, self.engine.batch_size))
            else:
                buckets.setdefault(working_shape(height, width, self.spec.short_side), []).append(index)
        for shape, members in buckets.items():
            outputs = self.engine.run(np.stack([resize(images[index], shape) for index in members]))
            for position, index in enumerate(members):
                found[index] = self._prediction(images[index], Outputs(*(output[position] for output in outputs)))
        return [found[index] for index in range(len(images))]

    def _prediction(self, image: Image, outputs: Outputs) -> Prediction:
        return Prediction(self.spec, image.shape[0], image.shape[1], outputs.scores, outputs.mask, outputs.cams)


def _pixels(image: ImageInput) -> Image:
    match image:
        case bytes():
            return decode(image)
        case str() | Path():
            return read_image(Path(image))
        case _ if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:  # noqa: PLR2004
            return image
        case _:
            raise ImageError(f"an array of {image.dtype} {image.shape} is no image; give uint8 [height, width, 3], RGB")


def load(path: str | Path, *, device: str = "auto", threads: int | None = None, self_check: bool = True) -> Predictor:
    """Load a model file.

    Args:
        path: The model file.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: Threads inside one prediction. Default: the cores this process may use.
        self_check: Compare the model with the answers of the trained network that it carries; what passed once on
            this machine is not compared again.

    Raises:
        ModelError: The file is missing, no model, of a newer format, or gives something else than it should.
        DeviceError: The device that was asked for cannot be used.
    """
    return Predictor(Engine(Path(path), device=device, threads=threads, self_check=self_check))
