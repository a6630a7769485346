"""The steps of Algorithm 1 on one data set: query, gather masks, train, choose a threshold, pseudo-label, publish."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from alserve.arrays import Floats, Grey, Image
from alserve.errors import DataError, RunError
from alserve.measure.dataset import Dataset
from alserve.terminal import progress, say
from training.annotate.oracle import NoMask, Oracle
from training.learning import calibration, empty_masks, publication
from training.learning.cam_seeds import seeds
from training.learning.context import ModelContext
from training.learning.data import TrainingData
from training.learning.neighbours import Neighbours, neighbours
from training.learning.pool import Pool, evenly
from training.learning.pseudo import pseudo_mask
from training.learning.shared import Shared
from training.learning.similarity import describe_once
from training.learning.state import LearningState, fits
from training.learning.threshold import Threshold
from training.learning.working_size import advise, best_dice_by_size
from training.model.network import JointNet
from training.model.trainer import Lesson, Trainer
from training.query import STRATEGIES
from training.run.folder import Run
from training.run.state import State, Weights, weights_of
from training.seeds import derive_seed

OTHER_STATE = "its saved state does not fit its data and settings; begin the run anew with --overwrite"


class Learner:
    """The steps of Algorithm 1; each is a function of the state and of the arguments here.

    Args:
        dataset: Images with their classes.
        images: Its training images, from `training.learning.data.read_images`.
        oracle: Answers with the masks that are asked for.
        trainer: Runs the two training phases.
        run: Where weights and results are kept.
    """

    def __init__(self, dataset: Dataset, images: Sequence[Image], oracle: Oracle, trainer: Trainer, run: Run) -> None:
        self.settings = trainer.settings
        self.data = TrainingData(dataset, images, self.settings)
        self.oracle = oracle
        self.trainer = trainer
        self.run = run
        self.shared = Shared(run.shared, trainer, run.fingerprint)

    def begin(self, saved: State) -> LearningState:
        """Step 0: theta0 (encoder and CAM head trained on all images with their classes, a new decoder), L, U and P.

        Args:
            saved: Where the run is.

        Raises:
            RunError: The saved state is of other data or another network.
        """
        if not fits(saved, self.data):
            raise RunError(f"{self.run.folder}: {OTHER_STATE}")
        self.run.note_time(0, "data")
        if (theta0 := self.run.load_theta0()) is None:
            theta0 = self.shared.theta0(self._train_classifier)
            self.run.save_theta0(theta0)
            self.run.note_time(0, "theta0")
        answerable = frozenset(i for i, sample in enumerate(self.data.samples) if self.oracle.can_answer(sample))
        pool = Pool(self.data.labels, answerable, self.data.known_empty)
        state = LearningState(**vars(saved), theta0=theta0, pool=pool)
        for asked in state.asked:
            state.pool.ask(asked)
        state.pool.add_pseudo(state.pseudo.keys())
        self._take_masks(state)
        return state

    def _train_classifier(self) -> Weights:
        seed = derive_seed(self.settings.seed, 0)
        net = self._new_network(seed)
        self.trainer.train_classifier(net, self.data.with_classes(), seed)
        self.run.note_time(0, "classifier")
        return weights_of(net)

    def _new_network(self, seed: int) -> JointNet:
        classes = range(len(self.data.dataset.classes))
        empty = [label for label in classes if label not in self.data.foreground_classes]
        return self.trainer.new_network(len(classes), seed, empty)

    def network(self, weights: Weights) -> JointNet:
        """Build a network that holds these weights."""
        net = self._new_network(self.settings.seed)
        try:
            net.load_state_dict(dict(weights))
        except RuntimeError:  # names or shapes of another network
            raise RunError(f"{self.run.folder}: {OTHER_STATE}") from None
        return net

    def nearest(self) -> list[Neighbours]:
        """Find every image's neighbours within its class; only pseudo-labels need them, of classes with foreground."""
        if not self.settings.learns_from_pseudo:
            return []
        k, classes = self.settings.k, self.data.foreground_classes
        sizes = Counter(label for label in self.data.labels if label in classes)
        if small := [label for label in sorted(sizes) if sizes[label] <= k]:
            others = f", and so have {len(small) - 1} more classes" if small[1:] else ""
            say(
                f"k is {k:g}, and class {self.data.dataset.classes[small[0]]} has only {sizes[small[0]]} images{others}"
                ": there every image is a neighbour of all others"
            )
        source = f"{self.run.fingerprint}, short side {self.settings.short_side}"
        counts = describe_once(self.data.images, self.run.cache, source)
        seed = derive_seed(self.settings.seed, 5)
        found = neighbours(counts, self.data.labels, k, seed, classes)
        self.run.note_time(0, "neighbours")
        return found

    def query(self, state: LearningState) -> list[int]:
        """Choose images until the round has its number of them per class; for full supervision, all there are."""
        pool = state.pool
        if self.settings.all_masks_at_once:
            return sorted(pool.askable)
        strategy = STRATEGIES[self.settings.query]
        context = ModelContext(
            self.data,
            self.trainer,
            partial(self.network, state.weights or state.theta0),
            has_model=bool(state.weights),
            seed=derive_seed(self.settings.seed, 4, state.round),
        )
        chosen: list[int] = []
        classes = self.data.foreground_classes
        with progress(len(classes), f"round {state.round}, query", "classes") as show:
            for done, label in enumerate(classes, start=1):
                wanted = self.settings.schedule[state.round - 1] - len(pool.of_class(label, state.asked_now))
                wanted = min(wanted, len(pool.of_class(label, pool.unlabelled & pool.askable)))
                if wanted:
                    rng = np.random.default_rng(derive_seed(self.settings.seed, 1, state.round, label))
                    labelled = pool.of_class(label, pool.labelled)
                    chosen += strategy.choose(context, pool.candidates(label, wanted), labelled, wanted, rng)
                show(done)
        return sorted(chosen)

    def gather_masks(self, state: LearningState) -> bool:
        """Steps 1 and 2d: query, and ask the oracle for masks, until L has grown by the round's budget.

        What is asked for is saved first, so that a person is never asked for something else instead. Images that the
        oracle will not draw are replaced by others, as long as their class has some.

        Returns:
            False where a person has to draw first: the run continues when it is started again.

        Raises:
            DataError: No image is left that the oracle would draw, or no mask has foreground.
        """
        if len(state.asked) < state.round:
            state.asked.append([])
        while True:
            while chosen := self.query(state):
                state.asked[-1] = sorted([*state.asked[-1], *chosen])
                self.run.save_state(state)
                state.pool.ask(chosen)
                self._take_masks(state)
            missing = [self.data.samples[index] for index in state.missing]
            self.run.note_time(state.round, "masks")
            if not self.oracle.request(missing, self.run.model if state.records else None):
                break
            self.run.leave_time_out()
            self._take_masks(state)
        self.run.note_time(state.round, "masks")
        if missing:
            return False
        if not state.pool.labelled and self.settings.schedule[0]:
            raise DataError(
                f"{self.data.dataset.source}: every image was skipped; allow some again, or use --method cams-only"
            )
        self._check_masks(state)
        for label in self.data.foreground_classes:
            name = self.data.dataset.classes[label]
            found, wanted = len(state.pool.of_class(label, state.asked[-1])), self.settings.schedule[state.round - 1]
            if found < wanted:
                say(f"class {name}: no image is left to ask for; round {state.round} has {found} of {wanted} new masks")
        return True

    def _check_masks(self, state: LearningState) -> None:
        """Refuse masks that are all empty, and say where the working size hides the objects of the round's."""
        if state.masks and not any(mask.any() for mask in state.masks.values()):
            raise DataError(
                f"{self.data.dataset.source}: {len(state.masks)} masks so far, all empty: there is no foreground to "
                "learn from; ask for more, or give others (--initial, --masks, with --overwrite), or use "
                "--method cams-only"
            )
        sizes = [state.best_dice[index] for index in state.asked[-1] if index in state.best_dice]
        if advice := advise(sizes, self.settings.short_side):
            say(advice)

    def _take_masks(self, state: LearningState) -> None:
        """Ask the oracle for the missing masks; move their images into L, and drop those that it will not draw."""
        missing = state.missing
        answers = self.oracle.ask([self.data.samples[index] for index in missing])
        for index, answer in zip(missing, answers, strict=True):
            if answer is NoMask.EVER:
                state.forget(index)
            elif not isinstance(answer, NoMask):
                state.masks[index] = self.data.working_mask(answer)
                if answer.any():
                    state.best_dice[index] = best_dice_by_size(answer, self.settings.short_side)
                state.pool.add_masks([index])

    def train(self, state: LearningState) -> JointNet:
        """Steps 2a and 2b: from theta0, train on L and P, and on the images that are known to be empty.

        The first of several passes learns from L alone, so that errors in P do not reinforce themselves. Where the
        encoder learns as well, all of D is trained on with its class labels, and by consistency if that is the method.
        Without any mask, seeds are learned from in their place.
        """
        net = self.network(state.theta0)
        if self.settings.mask_from_cams:
            return net
        data, pool = self.data, state.pool
        if self.settings.learns_from_cams:
            labelled = data.with_seeds(state.pseudo)
        else:
            labelled = data.with_masks(state.masks, pool.labelled)
        alone = state.passes == 0 and self.settings.passes_a_round > 1
        pseudo = pool.pseudo if self.settings.learns_from_pseudo and not alone else set[int]()
        lesson = Lesson(labelled, data.with_pseudo(state.pseudo, pseudo), data.with_classes(state.masks))
        seed = derive_seed(self.settings.seed, 2, state.round, state.passes)

        def train() -> Weights:
            self.trainer.train_segmenter(net, lesson, seed, f"round {state.round}, pass {state.passes + 1}")
            self.run.note_time(state.round, f"pass {state.passes + 1}")
            return weights_of(net)

        if state.round == 1 and not pseudo:
            net.load_state_dict(dict(self.shared.first_pass(sorted(pool.labelled), train)))
        else:
            train()
        return net

    def draw_seeds(self, state: LearningState) -> Mapping[int, Grey]:
        """Return what theta0's CAMs tell of the masks of as many images of every class as a training looks at.

        See `training.learning.cam_seeds`.
        """
        data, classes = self.data, self.data.foreground_classes
        most = -(-self.settings.steps * self.settings.batch // len(data.dataset.classes))
        members = sorted(
            index for label in classes for index in evenly(state.pool.of_class(label, range(len(data))), most)
        )
        labels = [data.labels[index] for index in members]
        net = self.network(state.theta0)
        drawn = seeds(net, (data.images[index] for index in members), labels, self.trainer)
        found = self.run.save_pseudo(1, 1, members, _shown(drawn, members, "class activation maps"))
        self.run.note_time(1, "class activation maps")
        return found

    def choose_threshold(self, net: JointNet, state: LearningState) -> Threshold:
        """Step 2c: see `training.learning.calibration`."""
        start = partial(self.network, state.theta0)
        threshold = calibration.choose_threshold(net, state, self.data, self.trainer, start)
        self.run.note_time(state.round, "threshold")
        return threshold

    def pseudo_label(self, net: JointNet, state: LearningState) -> Mapping[int, Grey]:
        """Step 2f: return the model's mask of every image in P, as it is or as the mean over the image's flips."""
        members, flips = sorted(state.pool.pseudo), self.settings.pseudo_views
        images = (self.data.images[index] for index in members)
        views = (np.flip(image, axes).copy() for image in images for axes in flips)
        predicted = self.trainer.predict(net, views)

        def mean() -> Floats:
            flipped_back = [
                np.flip(probability, axes) for axes, (probability, _) in zip(flips, predicted, strict=False)
            ]
            found: Floats = np.stack(flipped_back).mean(axis=0)
            return found

        masks = _shown(
            (pseudo_mask(mean(), state.threshold) for _ in members), members, f"round {state.round}, pseudo-masks"
        )
        found = self.run.save_pseudo(state.round, state.passes + 1, members, masks)
        self.run.note_time(state.round, "pseudo-masks")
        return found

    def publish(self, state: LearningState) -> dict[str, object]:
        """Step 3: see `training.learning.publication`; and say which masks are empty that should not be."""
        net = self.network(state.weights)
        record = publication.publish(net, state, self.data, self.trainer, self.run)
        record |= empty_masks.warn_of_empty_masks(net, state, self.data, self.trainer)
        self.run.note_time(state.round, "empty masks")
        return record


def _shown(masks: Iterable[Grey], images: Sequence[int], what: str) -> Iterator[Grey]:
    """Return the masks of images as they are, with a progress bar."""
    with progress(len(images), what) as show:
        for done, mask in enumerate(masks, start=1):
            yield mask
            show(done)
