"""Images in, predictions out: the working-size arrays of the network, and full-size views of them on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alserve.engine import Engine, Float32
from alserve.geometry import resize, working_shape
from alserve.modelfile import ModelSpec


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
        return resize(self.working_probability, (self.height, self.width))

    def mask(self, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        """Foreground at the image's own size: bool [height, width].

        Args:
            threshold: Probability, 0 to 1, above which a pixel is foreground; the model's own if left out.
        """
        return self.probability() > (self.spec.threshold if threshold is None else threshold)

    def cam(self, label: str | None = None) -> Float32:
        """Class activation map at the image's own size: float32 [height, width], 0 to 1.

        The scale is the model's `cam_range`, the same for all images, so that maps can be compared.

        Args:
            label: The class; the predicted one if left out.

        Raises:
            ValueError: The model has no such class.
        """
        index = self.spec.classes.index(self.label if label is None else label)
        low, high = self.spec.cam_range
        cam = np.clip((self.working_cams[index] - low) / ((high - low) or 1), 0, 1)
        return resize(cam, (self.height, self.width))


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

    def predict(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Prediction]:
        """Predict several images; those that share a working shape go through the network together.

        Args:
            images: Each uint8 [height, width, 3], RGB, of any size.

        Returns:
            One prediction an image, in order.
        """
        shapes = [working_shape(image.shape[0], image.shape[1], self.spec.short_side) for image in images]
        found: dict[int, Prediction] = {}
        for shape in dict.fromkeys(shapes):
            members = [index for index, other in enumerate(shapes) if other == shape]
            outputs = self.engine.run(np.stack([resize(images[index], shape) for index in members]))
            for index, scores, cams, mask in zip(members, *outputs, strict=True):
                height, width = images[index].shape[:2]
                found[index] = Prediction(self.spec, height, width, scores, mask, cams)
        return [found[index] for index in range(len(images))]


def load(path: str | Path, *, device: str = "auto", threads: int | None = None) -> Predictor:
    """Load a model file.

    Args:
        path: The model file.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: Threads inside one prediction; the cores this process may use if left out.

    Raises:
        ModelError: The file is missing, no model, or of a newer format.
        DeviceError: The device that was asked for cannot be used.
    """
    return Predictor(Engine(Path(path), device=device, threads=threads))
