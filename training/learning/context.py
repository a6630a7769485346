"""What a query strategy may ask of the last round's network."""

from collections.abc import Callable, Sequence
from functools import cached_property

from alserve.arrays import Floats
from alserve.geometry import resize
from training.learning.data import TrainingData
from training.model.network import JointNet
from training.model.trainer import Trainer
from training.seeds import derive_seed

DRAWS = 50
"""Draws of MC-dropout, as published."""


class ModelContext:
    """The images as the last round's network sees them; see `training.query.QueryContext`.

    Args:
        data: The images.
        trainer: Predicts with the network.
        build: Returns the network, at the first question.
        has_model: Whether it has learned masks yet.
        seed: Drives the draws of dropout.
    """

    def __init__(
        self, data: TrainingData, trainer: Trainer, build: Callable[[], JointNet], *, has_model: bool, seed: int
    ) -> None:
        self.has_model = has_model
        self._data = data
        self._trainer = trainer
        self._build = build
        self._seed = seed

    @cached_property
    def _net(self) -> JointNet:
        return self._build()

    def features(self, images: Sequence[int]) -> Floats:
        """See `QueryContext.features`."""
        return self._trainer.features(self._net, (self._data.images[index] for index in images))

    def places(self, image: int) -> tuple[Floats, Floats]:
        """See `QueryContext.places`."""
        features, cams = self._trainer.places(self._net, self._data.images[image])
        return features, cams[self._data.labels[image]]

    def probability(self, image: int) -> Floats:
        """See `QueryContext.probability`."""
        return self._predict(image)[0]

    def samples(self, image: int) -> Floats:
        """See `QueryContext.samples`."""
        return self._trainer.draw_masks(self._net, self._data.images[image], DRAWS, derive_seed(self._seed, image))

    def cam(self, image: int) -> Floats:
        """See `QueryContext.cam`."""
        probability, cams = self._predict(image)
        cam = cams[self._data.labels[image]]
        scaled = (cam - cam.min()) / (cam.max() - cam.min() + 1e-6)
        return resize(scaled, (probability.shape[0], probability.shape[1]))

    def _predict(self, image: int) -> tuple[Floats, Floats]:
        return next(self._trainer.predict(self._net, [self._data.images[image]]))
