"""Images with what a model predicts for them, to be shown in a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from alserve.arrays import Image, Mask
from alserve.drawing import panels
from alserve.errors import AlserveError
from alserve.measure.dataset import Dataset, Sample, load_dataset
from alserve.measure.folders import find_pictures, stem
from alserve.measure.metrics import dice
from alserve.predictor import Prediction, Predictor
from alserve.terminal import say
from training.annotate.label_studio import LabelStudioOracle
from training.annotate.oracle import FolderOracle, NoMask, Oracle
from training.annotate.oracles import open_oracle
from training.run.result import RunResult
from training.settings import Settings


@dataclass(frozen=True, eq=False)
class ReportCase:
    """An image with what the model predicted, and what is true where that is known."""

    name: str
    image: Image
    """uint8 [height, width, 3], RGB."""
    prediction: Prediction
    true_label: str | None = None
    truth: Mask | None = None
    """The expert's mask, bool [height, width]."""

    @property
    def dice(self) -> float | None:
        """Dice of predicted and true mask, 0 to 1; None without a true one."""
        return None if self.truth is None else dice(self.prediction.mask(), self.truth)

    @property
    def right(self) -> bool | None:
        """Whether the label is right; None where the true one is not known."""
        return None if self.true_label is None else self.true_label == self.prediction.label

    @property
    def score(self) -> float:
        """Score of the predicted label, 0 to 1."""
        return self.prediction.scores[self.prediction.label]

    def pictures(self) -> dict[str, Image]:
        """Return the pictures of the contact sheet, uint8 RGB, by heading."""
        return panels(self.image, self.prediction.cam(), self.prediction.mask(), self.truth)


@dataclass(frozen=True, eq=False)
class AskedRound:
    """What the oracle was asked for in one round."""

    number: int
    count: int
    """How many images."""
    cases: Sequence[ReportCase]
    """Those that are shown."""


def open_dataset(run: RunResult, classes: Sequence[str]) -> Dataset | None:
    """Open the data set that a run learned from; print why, and return None, where nothing can be shown from it.

    Args:
        run: The run.
        classes: Those that its model knows.
    """
    try:
        dataset = load_dataset(run.config["source"], run.config["masks"])
    except AlserveError as error:
        say(f"no pictures in the report: {error}")
        return None
    if dataset.classes != tuple(classes):
        say(f"no pictures in the report: {dataset.source} has changed; its classes are {', '.join(dataset.classes)}")
        return None
    return dataset


def choose_cases(predictor: Predictor, dataset: Dataset, most: int) -> list[ReportCase]:
    """Choose test images to show, evenly from each class, and predict them; training images where there is no test.

    Args:
        predictor: The model, with the data set's classes.
        dataset: Images with their classes.
        most: How many, at most.
    """
    pool = dataset.split("test") or dataset.split("train")
    each = most // len(dataset.classes) or 1
    chosen: list[Sample] = []
    for label in range(len(dataset.classes)):
        members = [sample for sample in pool if sample.label == label]
        chosen += members[:: max(1, len(members) // each)][:each]
    return [_case(predictor, sample) for sample in chosen[:most]]


def asked_rounds(predictor: Predictor, dataset: Dataset, run: RunResult, most: int) -> list[AskedRound]:
    """Show what the oracle was asked for, some images of every round, with the model's predictions.

    Args:
        predictor: The model, with the data set's classes.
        dataset: Images with their classes.
        run: The run that asked.
        most: How many images, at most.
    """
    oracle = open_oracle(run.config.get("oracle", "data"), run.folder)
    samples = _with_drawn_masks(dataset.samples, oracle)
    each = max(1, most // max(1, len(run.rounds)))
    shown: list[list[Sample]] = []
    for record in run.rounds:
        there = [samples[name] for name in record["asked"] if name in samples]
        shown.append(there[:: -(-len(there) // each) or 1][: min(each, most)])
        most -= len(shown[-1])
    masks = _submitted_masks(oracle, [sample for some in shown for sample in some], dataset, run)
    return [
        AskedRound(record["round"], count, [_case(predictor, sample, masks.get(sample.name)) for sample in some])
        for record, some in zip(run.rounds, shown, strict=True)
        if (count := len(record["asked"]))
    ]


def _with_drawn_masks(samples: Sequence[Sample], oracle: Oracle) -> dict[str, Sample]:
    """Return the images by name, with a person's masks where a person drew them in a folder."""
    drawn = find_pictures(oracle.masks) if isinstance(oracle, FolderOracle) else {}
    return {sample.name: replace(sample, mask=drawn.get(stem(sample.name), sample.mask)) for sample in samples}


def _submitted_masks(oracle: Oracle, samples: Sequence[Sample], dataset: Dataset, run: RunResult) -> dict[str, Mask]:
    """Return the masks that were submitted in Label Studio, by name; print why where they cannot be had."""
    if not isinstance(oracle, LabelStudioOracle):
        return {}
    try:
        oracle.check(dataset, Settings.of(None, run.settings))
        answers = oracle.ask(samples)
    except AlserveError as error:
        say(f"no drawn masks in the report: {error}")
        return {}
    return {
        sample.name: answer for sample, answer in zip(samples, answers, strict=True) if not isinstance(answer, NoMask)
    }


def _case(predictor: Predictor, sample: Sample, drawn: Mask | None = None) -> ReportCase:
    image, truth = sample.read()
    (prediction,) = predictor.predict([image])
    return ReportCase(
        sample.name, image, prediction, predictor.spec.classes[sample.label], truth if drawn is None else drawn
    )
