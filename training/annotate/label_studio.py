"""A person who draws masks in Label Studio, live: tasks go there, and what is submitted comes back."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from alserve.arrays import Mask
from alserve.certainty import certainty
from alserve.errors import DataError, OptionError
from alserve.images.codec import encode_png, peek_shape, read_bytes
from alserve.label_studio.config import MODEL, SETUP, Control, read_config
from alserve.label_studio.regions import mask_regions
from alserve.measure.dataset import Dataset, Sample
from alserve.paths import printable
from alserve.predictor import Predictor, load
from alserve.terminal import say, say_once
from training.annotate.checks import looks_inverted
from training.annotate.formats.label_studio import Submitted
from training.annotate.label_studio_api import Listed, Project
from training.annotate.oracle import NoMask, answers_for, check_person, classes_to_ask_for
from training.settings import Settings

NAME, DIGEST = "alserve_image", "alserve_sha256"
"""Where a task's data says which image it is, and of which bytes: names may come again with other images."""

CONSENSUS = "consensus"
"""What stands behind the project's number where the masks of several people count together."""

EMPTY, FULL = "empty", "full"
"""What a person chooses to confirm a mask without foreground, and one that is foreground all along the border."""

CONFIRMING_SETUP = SETUP.replace(
    "</View>",
    f"""\
  <Choices name="confirm" toName="image" choice="single" showInLine="true">
    <Choice value="{EMPTY}" hint="There is no foreground in this image"/>
    <Choice value="{FULL}" hint="Foreground reaches around the whole border of this image"/>
  </Choices>
</View>""",
)
"""The labelling configuration of a project that had none."""

_SHOWN = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"}
"""Suffixes of images that browsers show; others are uploaded as PNG."""


class LabelStudioOracle:
    """A person, or several, who draw masks in a project of Label Studio.

    What they submitted is only ever read: a run adds tasks to the project, with the present model's masks to correct,
    and changes and removes none. An image's mask is the annotation that was submitted last, or the `consensus` of each
    person's last one; who skipped an image has no part in it, and one that all skipped has no mask.

    Args:
        place: The project's number, as in the address of its page, and ":consensus" behind it where that is to count;
            server and token are in the variables `training.annotate.label_studio_api.URL` and `KEY`.

    Raises:
        DataError: It is no number, or something else stands behind it.
    """

    def __init__(self, place: str) -> None:
        number, colon, rule = place.partition(":")
        if not number.isascii() or not number.isdigit():
            raise DataError(
                f"--oracle label-studio:{place}: give the project's number, as in the address /projects/3/data: "
                "label-studio:3"
            )
        if colon and rule != CONSENSUS:
            raise DataError(
                f"--oracle label-studio:{place}: of an image that several people submitted the latest mask counts; for "
                f"that of the majority of them, give label-studio:{number}:{CONSENSUS}"
            )
        self._number = int(number)
        self._by_consensus = bool(colon)
        self._tasks: dict[str, list[Listed]] | None = None
        self._classes: tuple[str, ...] = ()

    @cached_property
    def _project(self) -> Project:
        return Project.from_environment(self._number)

    @cached_property
    def _controls(self) -> list[Control]:
        """What masks are drawn with, brush or polygons; drafts are for the first."""
        state = self._project.read()
        try:
            controls = read_config(state.label_config)
        except OptionError as error:
            raise DataError(f"{self._project.page}: {error}") from None
        found = [control for control in controls if control.kind != "Choices"]
        if not found:
            raise DataError(
                f"{self._project.page}: its labelling configuration has no BrushLabels and no PolygonLabels of an "
                f"image; empty it, and it is set, or set this one: {' '.join(CONFIRMING_SETUP.split())}"
            )
        return found

    def check(self, dataset: Dataset, settings: Settings) -> None:
        """Refuse what a person has no part in, and a project that does not fit; configure an empty one."""
        check_person(dataset, settings)
        if "".join(self._project.read().label_config.split()) in {"", "<View></View>", "<View/>"}:
            self._project.configure(CONFIRMING_SETUP)
        self._classes = dataset.classes
        for _, name in classes_to_ask_for(dataset, settings):
            if self._controls[0].label_of(name, dataset.classes) is None:
                raise DataError(
                    f"{self._project.page}: its labelling configuration has no label for masks of class {name}; name "
                    "one so, or have one only"
                )

    def can_answer(self, sample: Sample) -> bool:
        """Tell whether nobody skipped this image, or somebody drew it nevertheless."""
        tasks = self._tasks_of(sample)
        return not any(task.cancelled_annotations for task in tasks) or any(task.total_annotations for task in tasks)

    def ask(self, samples: Sequence[Sample]) -> list[Mask | NoMask]:
        """Read what was submitted so far."""
        self._tasks = None
        return answers_for(samples, self._answer)

    def request(self, samples: Sequence[Sample], model: Path | None) -> bool:
        """Add a task for each image that has none yet, with the model's mask to correct, and say so."""
        if not samples:
            return False
        new = [sample for sample in samples if not self._tasks_of(sample)]
        predictor = load(model, device="cpu", threads=1) if model and new else None
        for sample in new:
            self._project.add(self._task(sample, predictor))
        self._tasks = None
        count = "1 mask" if len(samples) == 1 else f"{len(samples)} masks"
        say(f"{count} to draw: submit them at {self._project.page}, then run the same command again")
        return False

    def end(self, report: Path | None) -> None:
        """Do nothing: the project stays."""

    def _task(self, sample: Sample, predictor: Predictor | None) -> dict[str, Any]:
        """Upload an image, and return a task for it."""
        name = PurePosixPath(printable(sample.name))
        data = read_bytes(sample.image)
        task: dict[str, Any] = {"data": {NAME: str(name), DIGEST: hashlib.sha256(data).hexdigest()}}
        image, _ = sample.read()
        control = self._controls[0]
        if name.suffix.lower() not in _SHOWN:
            name, data = name.with_suffix(".png"), encode_png(image)
        task["data"][control.key] = self._project.upload(name.name, data)
        if predictor:
            prediction = predictor.predict(image)
            label = control.label_of(self._classes[sample.label], self._classes)
            regions = mask_regions(control, str(label), prediction.mask())
            score = certainty(prediction.working_probability)
            task["predictions"] = [{"model_version": MODEL, "result": regions, "score": score}]
        return task

    def _tasks_of(self, sample: Sample) -> list[Listed]:
        """Return the tasks of an image: one, unless somebody added more."""
        if self._tasks is None:
            self._tasks = {}
            for task in self._project.tasks():
                self._tasks.setdefault(str(task.data.get(NAME)), []).append(task)
        tasks = self._tasks.get(printable(sample.name), [])
        digest = hashlib.sha256(read_bytes(sample.image)).hexdigest() if tasks else ""
        return [task for task in tasks if task.data.get(DIGEST) == digest]

    def _answer(self, sample: Sample) -> Mask | NoMask:
        """Return the mask that was submitted last, or that of all who submitted one.

        Raises:
            DataError: It cannot be used; says which task it is.
        """
        listed = [task for task in self._tasks_of(sample) if task.total_annotations or task.cancelled_annotations]
        if not listed:
            return NoMask.YET
        tasks = [self._project.task(task.id) for task in listed]
        found = sorted(
            ((place.id, one) for place, task in zip(listed, tasks, strict=True) for one in task.submitted),
            key=lambda each: (each[1].submitted_at, each[0]),
        )
        if not found:
            return NoMask.EVER if any(task.annotations for task in tasks) else NoMask.YET
        number, last = found[-1]
        place = f"{self._project.page}?task={number} ({sample.name})"
        latest = {one.person: one for _, one in found}.values() if self._by_consensus else [last]
        if len(found) > 1:
            counts = f"what most of {len(latest)} people painted" if self._by_consensus else "the latest"
            say_once(f"{place}: was submitted {len(found)} times; {counts} counts")
        try:
            return consensus([self._checked(one, sample) for one in latest])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{place}: {error}") from None

    def _checked(self, submitted: Submitted, sample: Sample) -> Mask:
        """Return the mask of an annotation.

        Raises:
            ValueError: It cannot be what the person means, or cannot be read.
        """
        shape = peek_shape(sample.image) or (0, 0)
        own = self._classes[sample.label]
        for label in sorted(submitted.labels - {own}):
            if not any(label in control.labels for control in self._controls):
                raise ValueError(f"the label {label[:40]!r} is not in the labelling configuration; use another")
            if label in self._classes:
                raise ValueError(f"is painted as {label}, and an image of class {own}; correct one of them")
        mask = submitted.mask()
        if mask is None:
            mask = np.zeros(shape, np.bool_)
        if mask.shape != shape:
            raise ValueError(
                f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {shape[1]} x {shape[0]}; they must "
                "be equal"
            )
        if mask.any() and EMPTY in submitted.choices:
            raise ValueError(f"is painted, and '{EMPTY}' is chosen as well; take one of them back")
        if not mask.any() and EMPTY not in submitted.choices:
            raise ValueError(f"nothing is painted; paint it, or if that is right, choose '{EMPTY}'")
        if (mask.all() or looks_inverted(mask)) and FULL not in submitted.choices:
            raise ValueError(
                f"{100 * mask.mean():.0f} % of it and nearly all of its border are painted, as where the background "
                f"was; correct it, or if that is right, choose '{FULL}'"
            )
        return mask


def consensus(masks: Sequence[Mask]) -> Mask:
    """Return which pixels are foreground in more than half of some masks; a tie is background.

    Args:
        masks: bool [height, width], one or more, of one size.

    Raises:
        ValueError: No pixel is, though at least half of them have foreground.
    """
    votes = np.zeros(masks[0].shape, np.uint16)
    for mask in masks:
        votes += mask
    agreed: Mask = 2 * votes > len(masks)
    if not agreed.any() and sum(mask.any() for mask in masks) * 2 >= len(masks):
        raise ValueError(f"no pixel is painted by most of {len(masks)} people; let them agree")
    return agreed
