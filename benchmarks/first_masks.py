"""Compare which masks to ask for first, over many draws; write the table to benchmarks/results/first_masks-NAME.md.

    python benchmarks/first_masks.py tiles.csv --empty-class free

A run depends on the draw of its first masks, and takes minutes. Here the classifier is trained as a run trains it, once
for each seed; then a linear model learns masks from its feature maps, in milliseconds, for hundreds of draws: a ridge
regression at the places of a grid, at which the Dice is measured, too. What it says of strategies is to be confirmed by
whole runs, see benchmarks/first-masks.yaml.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import cv2
import numpy as np
from common import RESULTS, machine, options, table, write_report

from alserve.arrays import Float32, Float64, Floats, Image, Mask
from alserve.geometry import resize, working_shape
from alserve.measure.dataset import Dataset, load_dataset
from training.learning.context import ModelContext
from training.learning.data import TrainingData, read_images
from training.model.network import JointNet
from training.model.trainer import PLACE, Trainer
from training.query import STRATEGIES
from training.seeds import derive_seed
from training.settings import Settings

COMPARED = {"random": 100, "typical": 10, "core-set": 10, "v-optimal": 10}
"""Draws of each strategy that needs no mask."""

NUMBERS = (1, 2, 4, 8)
"""Masks a class."""

DIMENSIONS, RIDGE, THRESHOLDS = 100, 0.02, np.linspace(-0.8, 0.8, 17)


def main() -> None:
    """Train, draw, measure, write the table."""
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--empty-class", action="append", default=[], help="a class without foreground")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data)
    found: dict[tuple[str, int], list[list[float]]] = {(name, number): [] for name in COMPARED for number in NUMBERS}
    for seed in range(arguments.seeds):
        settings = Settings.of(None, {"seed": seed, "empty_classes": arguments.empty_class})
        for key, dice in measure(dataset, settings).items():
            found[key].append(dice)
    rows = [[name, *(_spread(found[name, number]) for number in NUMBERS)] for name in COMPARED]
    how = (
        f"`python benchmarks/first_masks.py {arguments.data.name}"
        f"{''.join(f' --empty-class {name}' for name in arguments.empty_class)}`, {arguments.seeds} classifiers; "
        f"draws with each: {', '.join(f'{name} {draws}' for name, draws in COMPARED.items())}; {machine()}."
    )
    what = (
        "Dice of the test images with foreground in %, of a linear model of the classifier's features, at places of "
        f"{PLACE} x {PLACE} pixels; mean over classifiers of the mean over draws, ± the mean of their standard "
        "deviation. A network that learns from the same masks is far better; see the page on the first masks."
    )
    titles = ("asked for", *(f"{number} a class" for number in NUMBERS))
    name = f"first_masks-{arguments.data.stem}.md"
    write_report(RESULTS / name, "Which masks to ask for first: a linear model", how, what, table(titles, rows))


def _spread(draws: Sequence[Sequence[float]]) -> str:
    return f"{mean(map(mean, draws)):.1f} ± {mean(map(stdev, draws)):.1f}"


@dataclass(frozen=True)
class Places:
    """An image as the linear model sees it."""

    features: Float32
    """[places, channels]."""
    foreground: Float32
    """[places], shares from 0 to 1."""


def measure(dataset: Dataset, settings: Settings) -> dict[tuple[str, int], list[float]]:
    """Return the Dice, in %, that each strategy reaches with each number of masks a class, draw by draw."""
    data = TrainingData(dataset, read_images(dataset, settings.short_side), settings)
    trainer, seed = Trainer(settings), derive_seed(settings.seed, 0)
    net = trainer.new_network(len(dataset.classes), seed)
    trainer.train_classifier(net, data.with_classes(), seed)
    train = list(_places(net, trainer, dataset, "train"))
    model = LinearModel(train, list(_places(net, trainer, dataset, "test")), sorted(data.known_empty))
    context = Remembering(data, trainer, lambda: net, has_model=False, seed=0)
    classes = [[i for i, label in enumerate(data.labels) if label == each] for each in data.foreground_classes]
    found: dict[tuple[str, int], list[float]] = {}
    for name, draws in COMPARED.items():
        for number in NUMBERS:
            dice = []
            for draw in range(draws):
                rng = np.random.default_rng([settings.seed, number, draw])
                chosen = [STRATEGIES[name].choose(context, members, [], number, rng) for members in classes]
                dice.append(100 * model.dice([index for each in chosen for index in each]))
            found[name, number] = dice
    return found


class Remembering(ModelContext):
    """A context that asks the network of each image once."""

    def features(self, images: Sequence[int]) -> Floats:
        """See `QueryContext.features`."""
        return np.stack([self._feature(index) for index in images])

    @cache  # noqa: B019  a context lives as long as the program
    def _feature(self, image: int) -> Floats:
        return super().features([image])[0]

    @cache  # noqa: B019
    def places(self, image: int) -> tuple[Floats, Floats]:
        """See `QueryContext.places`."""
        return super().places(image)


def _places(net: JointNet, trainer: Trainer, dataset: Dataset, split: str) -> Iterable[Places]:
    for sample in dataset.split(split):
        image, mask = sample.read()
        height, width = working_shape(*image.shape[:2], trainer.settings.short_side)
        features, _cams = trainer.places(net, resize(image, (height, width)))
        yield Places(features, _shares(mask, image, (height // PLACE, width // PLACE)))


def _shares(mask: Mask | None, image: Image, grid: tuple[int, int]) -> Float32:
    """Return the share of foreground of each place: [places]."""
    whole = np.zeros(image.shape[:2], np.float32) if mask is None else mask.astype(np.float32)
    return cv2.resize(whole, grid[::-1], interpolation=cv2.INTER_AREA).astype(np.float32).ravel()


class LinearModel:
    """Ridge regression of the foreground, from sums over each training image that are made once.

    Args:
        train: The images that masks are asked of.
        test: The images that are measured on.
        empty: Those of `train` that are known to be empty; always learned from, as much as from all the others.
    """

    def __init__(self, train: Sequence[Places], test: Sequence[Places], empty: Sequence[int]) -> None:
        self._see = _components(np.concatenate([each.features[::8] for each in train]))
        self._train = [Places(self._see(each.features), each.foreground) for each in train]
        self._test = [Places(self._see(each.features), each.foreground) for each in test if each.foreground.max() > 0.5]
        self._empty = list(empty)
        self._sums = [[_sums(each, share) for each in self._train] for share in (True, False)]

    def dice(self, labelled: Sequence[int]) -> float:
        """Return the mean Dice over test images after learning from these training images, 0 to 1."""
        weights = self._learn(labelled)
        seen = [self._train[index] for index in labelled if self._train[index].foreground.max() > 0.5]
        own = np.mean([_dice(each, weights) for each in seen], axis=0) if seen else np.zeros(len(THRESHOLDS))
        threshold = np.convolve(np.pad(own, 1, mode="edge"), np.ones(3), "valid").argmax()
        return float(np.mean([_dice(each, weights)[threshold] for each in self._test]))

    def _learn(self, labelled: Sequence[int]) -> Float64:
        objects, ground = self._sums
        pixels = [sum(sums[index][2] for index in labelled) for sums in self._sums]
        balance = max(1.0, np.sqrt(pixels[1] / max(pixels[0], 1e-6)))
        terms = [(objects[index], balance, 1) for index in labelled] + [(ground[index], 1.0, -1) for index in labelled]
        terms += [(ground[index], len(labelled) / len(self._empty), -1) for index in self._empty]
        moment = np.sum([weight * each[0] for each, weight, _ in terms], axis=0)
        wanted = np.sum([weight * sign * each[1] for each, weight, sign in terms], axis=0)
        ridge = RIDGE * np.trace(moment) / len(moment)
        return np.asarray(np.linalg.solve(moment + ridge * np.eye(len(moment)), wanted))


def _components(sample: Float32) -> Callable[[Floats], Float32]:
    """Return what turns features into their principal components and 1, the strong ones made weaker."""
    middle, scale = sample.mean(axis=0), sample.std(axis=0) + 1e-6
    strengths, axes = np.linalg.eigh(np.cov((sample - middle) / scale, rowvar=False))
    axes = axes[:, -DIMENSIONS:] / strengths[-DIMENSIONS:] ** 0.25

    def see(features: Floats) -> Float32:
        return np.column_stack([((features - middle) / scale) @ axes, np.ones(len(features))]).astype(np.float32)

    return see


def _sums(image: Places, objects: bool) -> tuple[Float64, Float64, float]:  # noqa: FBT001
    """Return the sums of x x^T, of x and of 1 over the foreground of an image, or over the rest."""
    shares = image.foreground if objects else 1 - image.foreground
    weighted = (image.features * shares[:, None]).T
    return (weighted @ image.features).astype(np.float64), weighted.sum(axis=1).astype(np.float64), float(shares.sum())


def _dice(image: Places, weights: Float64) -> Float64:
    """Return the Dice at every threshold."""
    found = (image.features @ weights)[None] > THRESHOLDS[:, None]
    true = image.foreground > 0.5
    return np.asarray(2 * (found & true).sum(axis=1) / (found.sum(axis=1) + true.sum()))


if __name__ == "__main__":
    main()
