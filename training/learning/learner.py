"""The verbs of Algorithm 1 on one data set: query, train, choose a threshold, pseudo-label, publish."""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

from alserve.arrays import Floats, Grey, Image, Mask
from alserve.errors import DataError, ModelError, RunError
from alserve.geometry import resize, resize_mask, working_shape
from alserve.images.codec import peek_shape
from alserve.measure.dataset import Dataset
from alserve.measure.evaluate import measure
from alserve.measure.metrics import dice
from alserve.modelfile import ModelSpec, Provenance
from alserve.parallel import ordered_map
from alserve.predictor import load
from alserve.runtime.device import available_cores
from alserve.terminal import progress, say
from training.annotate.oracle import NoMask, Oracle
from training.data.augmentation import Example
from training.export.to_onnx import choose_references, export_model, stamp
from training.learning.pool import Pool
from training.learning.pseudo import foreground, pixel_weights, pseudo_mask, target
from training.learning.shared import Shared
from training.learning.similarity import describe_once, neighbours
from training.learning.threshold import best_threshold, otsu_threshold
from training.model.network import JointNet
from training.model.phases import Trainer
from training.query.strategies import STRATEGIES
from training.run.folder import Run
from training.run.state import State, Weights
from training.seeds import derive_seed

CAM_PERCENTILES = (2, 98)
"""Activations of the predicted class that are drawn as 0 and as 1."""

CAM_IMAGES = 200
"""So many training images, at most, decide the scale of the CAMs."""

PARITY_IMAGES = 3

OTHER_STATE = "its saved state does not fit its data and settings; begin the run anew with --overwrite"

MORE_LIKELY_THAN_NOT = 0.5

MC_DRAWS = 50
"""Draws of MC-dropout, as published."""


def read_images(dataset: Dataset, short_side: int) -> list[Image]:
    """Read every image and mask there is, once, so that no run stops halfway at a bad file.

    Args:
        dataset: The data set.
        short_side: The working size, in pixels.

    Returns:
        The training images, at the working size: uint8 [height, width, 3], RGB.

    Raises:
        DataError: A file cannot be used, or an image and its mask differ in size.
    """
    images = []
    with progress(len(dataset.samples), "reading the data") as show:
        for done, (sample, (image, _mask)) in enumerate(zip(dataset.samples, dataset.read_all(), strict=True), start=1):
            if sample.split == "train":
                images.append(resize(image, working_shape(image.shape[0], image.shape[1], short_side)))
            show(done)
    return images


class Learner:
    """One data set in memory at the working size, and what Algorithm 1 does with it.

    Args:
        dataset: Images with their classes.
        images: Its training images, from `read_images`.
        oracle: Gives the masks that are asked for.
        trainer: Runs the two training phases.
        run: Where weights and results are kept.
    """

    def __init__(self, dataset: Dataset, images: Sequence[Image], oracle: Oracle, trainer: Trainer, run: Run) -> None:
        self.dataset = dataset
        self.oracle = oracle
        self.trainer = trainer
        self.run = run
        self.shared = Shared(run.shared, trainer, run.fingerprint)
        self.settings = trainer.settings
        self.samples = dataset.split("train")
        self.labels = tuple(sample.label for sample in self.samples)
        self.images = list(images)
        self.masks: dict[int, Mask] = {}
        self.valid = dataset.split("valid") if self.settings.uses_validation_masks else ()

    def _working_shape(self, pixels: Image | Mask) -> tuple[int, int]:
        return working_shape(pixels.shape[0], pixels.shape[1], self.settings.short_side)

    def _working_mask(self, mask: Mask) -> Mask:
        return resize_mask(mask, self._working_shape(mask))

    @contextmanager
    def timed(self, round_: int, what: str) -> Iterator[None]:
        """Note how long the block takes."""
        started = time.monotonic()
        yield
        self.run.note_time(round_, what, time.monotonic() - started)

    def theta0(self) -> Weights:
        """Step 0: train encoder and CAM head on all images with their classes; the decoder is new."""
        if (weights := self.run.load_theta0()) is None:
            weights = self.shared.theta0(self._train_classifier)
            self.run.save_theta0(weights)
        return weights

    def _train_classifier(self) -> Weights:
        seed = derive_seed(self.settings.seed, 0)
        net = self.trainer.new_network(len(self.dataset.classes), seed)
        examples = [self._example(index) for index in range(len(self.images))]
        with self.timed(0, "classifier"):
            self.trainer.train_classifier(net, examples, seed)
        return weights_of(net)

    def network(self, weights: Weights) -> JointNet:
        """Build a network that holds these weights."""
        net = self.trainer.new_network(len(self.dataset.classes), self.settings.seed)
        try:
            net.load_state_dict(dict(weights))
        except RuntimeError:  # names or shapes of another network
            raise RunError(f"{self.run.folder}: {OTHER_STATE}") from None
        return net

    def new_pool(self, state: State) -> Pool:
        """Build the sets L, U and P as the state has them."""
        there = range(len(self.samples))
        fits = all(index in there for asked in state.asked for index in asked) and all(
            index in there and mask.dtype == np.uint8 and mask.shape == self.images[index].shape[:2]
            for index, mask in state.pseudo.items()
        )
        if not fits:
            raise RunError(f"{self.run.folder}: {OTHER_STATE}")
        pool = Pool(
            self.labels,
            frozenset(i for i, sample in enumerate(self.samples) if self.oracle.can_answer(sample)),
        )
        for asked in state.asked:
            pool.ask(asked)
        pool.add_pseudo(state.pseudo.keys())
        self._give_masks(pool, state)
        return pool

    def nearest(self) -> list[list[int]]:
        """Find every image's neighbours within its class; only pseudo-labels need them."""
        if not self.settings.learns_from_pseudo:
            return []
        k, sizes = self.settings.k, Counter(self.labels)
        if small := [label for label in sorted(sizes) if sizes[label] <= k]:
            others = f", and so have {len(small) - 1} more classes" if small[1:] else ""
            say(
                f"k is {k:g}, and class {self.dataset.classes[small[0]]} has only {sizes[small[0]]} images{others}: "
                "there every image is a neighbour of all others"
            )
        source = f"{self.run.fingerprint}, short side {self.settings.short_side}"
        return neighbours(describe_once(self.images, self.run.cache, source), self.labels, k)

    def query(self, pool: Pool, theta0: Weights, state: State) -> list[int]:
        """Choose images to ask for until the round has so many per class; for full supervision, all there are."""
        if self.settings.all_masks_at_once:
            return sorted(pool.askable)
        asked = [index for indices in state.asked[state.round - 1 :] for index in indices]
        choose, view = STRATEGIES[self.settings.query], ModelContext(self, theta0, state)
        chosen: list[int] = []
        for label in range(len(self.dataset.classes)):
            wanted = self.settings.schedule[state.round - 1] - len(pool.of_class(label, asked))
            wanted = min(wanted, len(pool.of_class(label, pool.unlabelled & pool.askable)))
            if wanted:
                rng = np.random.default_rng(derive_seed(self.settings.seed, 1, state.round, label))
                labelled = pool.of_class(label, pool.labelled)
                chosen += choose(view, pool.candidates(label, wanted), labelled, wanted, rng)
        return sorted(chosen)

    def gather_masks(self, pool: Pool, theta0: Weights, state: State) -> bool:
        """Steps 1 and 2d: query, and the oracle gives masks, until L has grown by the round's budget.

        What is asked for is saved first, so that a person is never asked for something else instead. Images that the
        oracle will not draw are replaced by others, as long as their class has some.

        Returns:
            False where a person has to draw first: the same run goes on when it is started again.

        Raises:
            DataError: No image is left that the oracle would draw.
        """
        if len(state.asked) < state.round:
            state.asked.append([])
        while chosen := self.query(pool, theta0, state):
            state.asked[-1] = sorted([*state.asked[-1], *chosen])
            self.run.save_state(state)
            pool.ask(chosen)
            self._give_masks(pool, state)
        missing = [self.samples[index] for index in self._missing(pool, state)]
        self.oracle.request(missing, self.run.model if state.records else None)
        if missing:
            return False
        if not pool.labelled and self.settings.schedule[0]:
            raise DataError(
                f"{self.dataset.source}: every image was skipped; allow some again, or use --method cams-only"
            )
        for label, name in enumerate(self.dataset.classes):
            given, wanted = len(pool.of_class(label, state.asked[-1])), self.settings.schedule[state.round - 1]
            if given < wanted:
                say(f"class {name}: no image is left to ask for; round {state.round} has {given} of {wanted} new masks")
        return True

    def _missing(self, pool: Pool, state: State) -> list[int]:
        """Images that were asked for and are not in L."""
        return [index for asked in state.asked for index in asked if index not in pool.labelled]

    def _give_masks(self, pool: Pool, state: State) -> None:
        """Ask the oracle for what is missing, and move these images into L; forget those it will not draw."""
        missing = self._missing(pool, state)
        for index, answer in zip(missing, self.oracle.ask([self.samples[index] for index in missing]), strict=True):
            if answer is NoMask.EVER:
                state.asked = [[other for other in asked if other != index] for asked in state.asked]
            elif not isinstance(answer, NoMask):
                self.masks[index] = self._working_mask(answer)
                pool.add_masks([index])

    def train(self, theta0: Weights, pool: Pool, state: State) -> JointNet:
        """Steps 2a and 2b: from theta0, train on L and P.

        The first of several passes learns from L alone, so that errors in P do not feed on themselves.
        """
        net = self.network(theta0)
        if not pool.labelled:
            return net
        alone = state.passes == 0 and self.settings.passes_a_round > 1
        pseudo = {} if alone else {index: state.pseudo[index] for index in pool.pseudo}
        others = [self._example(index, pseudo.get(index)) for index in self._others(pool, pseudo)]
        seed = derive_seed(self.settings.seed, 2, state.round, state.passes)

        def train() -> Weights:
            name = f"round {state.round}, pass {state.passes + 1}"
            with self.timed(state.round, f"pass {state.passes + 1}"):
                self.trainer.train_segmenter(net, self._labelled(pool.labelled), others, seed, name)
            return weights_of(net)

        if state.round == 1 and not others:
            net.load_state_dict(dict(self.shared.first_pass(sorted(pool.labelled), train)))
        else:
            train()
        return net

    def _others(self, pool: Pool, pseudo: Collection[int]) -> list[int]:
        """P; and where the encoder learns along, all of U, so that every class label is taught on."""
        return sorted(pseudo if self.settings.encoder_lr == 0 else pool.unlabelled)

    def _labelled(self, indices: Sequence[int] | set[int]) -> list[Example]:
        return [Example(self.images[index], self.labels[index], self.masks[index]) for index in sorted(indices)]

    def _example(self, index: int, pseudo: Grey | None = None) -> Example:
        image, label, settings = self.images[index], self.labels[index], self.settings
        if pseudo is None:
            return Example(image, label)
        mask = target(pseudo, settings.pseudo_targets)
        return Example(image, label, mask, settings.pseudo_weight, pixel_weights(pseudo, settings.pseudo_pixels))

    def choose_threshold(self, net: JointNet, theta0: Weights, pool: Pool, state: State) -> float:
        """Step 2c: from held-out masks, by cross-validation inside L; or from split 'valid'.

        Cross-validation takes time: it is done for the round's last pass, whose model is served. The passes before it
        only make pseudo-masks, of the pixels that are foreground more likely than not.
        """
        if self.settings.mask_from_cams:
            return otsu_threshold([probability for probability, _ in self.trainer.predict(net, self.images)])
        if self.valid:
            images, truths = self._validation
            return best_threshold([p for p, _ in self.trainer.predict(net, images)], truths)
        if state.passes + 1 == self.settings.passes_a_round and len(pool.labelled) > 1:
            return self._cross_validate(theta0, pool, state)
        return MORE_LIKELY_THAN_NOT

    @cached_property
    def _validation(self) -> tuple[list[Image], list[Mask]]:
        """Images and masks of split 'valid', at the working size."""
        pairs = [(image, mask) for sample in self.valid for image, mask in [sample.read()] if mask is not None]
        images = [resize(image, self._working_shape(image)) for image, _ in pairs]
        return images, [self._working_mask(mask) for _, mask in pairs]

    def _cross_validate(self, theta0: Weights, pool: Pool, state: State) -> float:
        """Train on P and on parts of L, the encoder frozen, with a third of the steps; choose on the parts left out."""
        seed = derive_seed(self.settings.seed, 3, state.round, state.passes)
        shuffled = np.random.default_rng(seed).permutation(sorted(pool.labelled))
        order = sorted((int(index) for index in shuffled), key=lambda index: self.labels[index])
        folds = min(self.settings.folds, len(order))
        short = {"steps": max(1, self.settings.steps // 3), "encoder_lr": 0.0}
        trainer = replace(self.trainer, settings=self.settings.model_copy(update=short))
        others = [self._example(index, state.pseudo[index]) for index in sorted(pool.pseudo)]
        probabilities, truths = [], []
        with self.timed(state.round, "threshold"):
            for fold in range(folds):
                held_out = order[fold::folds]
                net = self.network(theta0)
                examples = self._labelled(set(order) - set(held_out))
                name = f"threshold, part {fold + 1} of {folds}"
                trainer.train_segmenter(net, examples, others, derive_seed(seed, fold), name)
                probabilities += [p for p, _ in trainer.predict(net, [self.images[index] for index in held_out])]
                truths += [self.masks[index] for index in held_out]
        return best_threshold(probabilities, truths)

    def pseudo_label(self, net: JointNet, pool: Pool, threshold: float) -> dict[int, Grey]:
        """Step 2f: give every image in P the model's mask, as it comes or as the mean over the image's flips."""
        members, ways = sorted(pool.pseudo), self.settings.pseudo_views
        views = (np.flip(self.images[index], axes).copy() for index in members for axes in ways)
        predicted = self.trainer.predict(net, views)

        def mean() -> Floats:
            turned_back = [np.flip(probability, axes) for axes, (probability, _) in zip(ways, predicted, strict=False)]
            found: Floats = np.stack(turned_back).mean(axis=0)
            return found

        return {index: pseudo_mask(mean(), threshold) for index in members}

    def _pseudo_dice(self, pseudo: Mapping[int, Grey]) -> float | None:
        """Measure pseudo-masks, at the working size, where the data set has a true mask; None where it has none.

        A true mask is read here to compare with and is let go: nothing learns from it, and no oracle was asked, so it
        is not in the budget. What is learned from is in `masks` and in P.
        """
        known = [index for index in sorted(pseudo) if self.samples[index].mask is not None]
        truths = ordered_map(lambda index: self.samples[index].read()[1], known, available_cores())
        found = [
            dice(foreground(pseudo[index]), resize_mask(truth, pseudo[index].shape))
            for index, truth in zip(known, truths, strict=True)
            if truth is not None
        ]
        return sum(found) / len(found) if found else None

    def publish(self, net: JointNet, pool: Pool, state: State) -> dict[str, object]:
        """Export the round's model, measure it on the test images as it is served, and give the round's record."""
        record: dict[str, object] = {
            "round": state.round,
            "masks_used": len(pool.labelled) + len(self.valid),
            "pseudo_labels": len(pool.pseudo),
            "pseudo_dice": self._pseudo_dice(state.pseudo),
            "threshold": state.threshold,
            "asked": [self.samples[index].name for index in state.asked[-1]],
        }
        with self.timed(state.round, "export"):
            spec = self._spec(net, pool, state)
            images = self.images[:PARITY_IMAGES]
            path = self.run.model
            cams_only = self.settings.mask_from_cams
            references = partial(choose_references, self.images, self.labels) if self.settings.references else None
            spec = export_model(net, spec, path, images, mask_from_cams=cams_only, references=references)
        if tests := self.dataset.split("test"):
            with self.timed(state.round, "test"):
                figures = measure(load(path, device="cpu", threads=1, self_check=False), tests)
            known = {"test_dice": figures.dice, "test_iou": figures.iou, "test_accuracy": figures.accuracy}
            provenance = spec.provenance.model_copy(update=known)
            stamp(path, spec.model_copy(update={"provenance": provenance}))
            record |= {"test_dice": figures.dice, "test_iou": figures.iou, "test_accuracy": figures.accuracy}
        return record

    def _spec(self, net: JointNet, pool: Pool, state: State) -> ModelSpec:
        cams = [
            cams.max(axis=0)
            for _, cams in self.trainer.predict(net, self.images[:: 1 + len(self.images) // CAM_IMAGES])
        ]
        low, high = np.percentile(np.concatenate([cam.ravel() for cam in cams]), CAM_PERCENTILES)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ModelError(
                "the trained network gives no numbers any more; train with a lower --set lr=... or encoder_lr"
            )
        shapes = [peek_shape(sample.image) for sample in self.samples]
        packages = ("alserve", "torch", "timm", "segmentation-models-pytorch", "onnx")
        return ModelSpec(
            classes=self.dataset.classes,
            threshold=state.threshold,
            short_side=self.settings.short_side,
            training_short_side=int(np.median([min(shape) for shape in shapes if shape])),
            cam_range=(float(low), float(high)),
            provenance=Provenance(
                encoder=self.settings.encoder,
                method=self.settings.method,
                seed=self.settings.seed,
                rounds=state.round,
                masks_used=len(pool.labelled) + len(self.valid),
                train_images=len(self.images),
                data_fingerprint=self.run.fingerprint,
                versions={name: version(name) for name in packages},
            ),
        )


class ModelContext:
    """What a query strategy may look at (see `QueryContext`): the images through the last round's network."""

    def __init__(self, learner: Learner, theta0: Weights, state: State) -> None:
        self.has_model = bool(state.weights)
        self._learner = learner
        self._weights = state.weights or theta0
        self._seed = derive_seed(learner.settings.seed, 4, state.round)

    @cached_property
    def _net(self) -> JointNet:
        return self._learner.network(self._weights)

    def features(self, images: Sequence[int]) -> Floats:
        """See `QueryContext.features`."""
        return self._learner.trainer.features(self._net, [self._learner.images[index] for index in images])

    def probability(self, image: int) -> Floats:
        """See `QueryContext.probability`."""
        return self._predict(image)[0]

    def samples(self, image: int) -> Floats:
        """See `QueryContext.samples`: 50 draws, as published."""
        learner = self._learner
        return learner.trainer.draw_masks(self._net, learner.images[image], MC_DRAWS, derive_seed(self._seed, image))

    def cam(self, image: int) -> Floats:
        """See `QueryContext.cam`."""
        probability, cams = self._predict(image)
        cam = cams[self._learner.labels[image]]
        scaled = (cam - cam.min()) / (cam.max() - cam.min() + 1e-6)
        return resize(scaled, (probability.shape[0], probability.shape[1]))

    def _predict(self, image: int) -> tuple[Floats, Floats]:
        return next(self._learner.trainer.predict(self._net, [self._learner.images[image]]))


def weights_of(net: JointNet) -> dict[str, Tensor]:
    """Return a copy of a network's weights in main memory, by name."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in net.state_dict().items()
    }
