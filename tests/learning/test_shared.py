"""Weights that runs of an experiment share: what they depend on, and what they do not."""

from pathlib import Path
from typing import Any

import torch
from drawn import UNTRAINED, example, settings

from training.learning.shared import NOT_IN_FIRST_PASS, NOT_IN_THETA0, Shared
from training.model.trainer import Lesson, Trainer
from training.run.state import Weights, weights_of
from training.settings import Settings

OTHERS: dict[str, Any] = {
    "method": "masks-only",
    "query": "entropy",
    "initial": 3,
    "per_round": 2,
    "rounds": 7,
    "passes": 4,
    "k": 3.0,
    "pseudo_weight": 0.1,
    "pseudo_share": 0.2,
    "pseudo_targets": "soft",
    "pseudo_pixels": "weighted",
    "pseudo_flips": True,
    "folds": 5,
    "validation_masks": True,
    "references": False,
}
"""Of every setting that is said not to bear on a training on L alone, another value."""

OTHERS_LATER: dict[str, Any] = {
    "steps": 5,
    "lr": 0.5,
    "encoder_lr": 0.1,
    "encoder_after": 16,
    "empty_classes": ("free",),
    "class_batch": 2,
    "dice_weight": 0.5,
    "object_crops": 0.1,
    "consistency_weight": 0.3,
    "certainty": 0.6,
    "cam_gate": 0.5,
    "teacher_momentum": 0.5,
    "cut_mix": 0.1,
}
"""Of those that bear on it, but not on theta0."""


class SharedFolder:
    """What is shared in one folder, and how often it was trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trained = 0

    def take(
        self, *, fingerprint: str = "f", labelled: tuple[int, ...] = (0, 3), **changes: Any
    ) -> list[dict[str, Any]]:
        """Theta0 and the weights of the first pass, as a run with these settings gets them."""
        trainer = Trainer(settings(UNTRAINED, **changes), "cpu")
        shared = Shared(self.folder, trainer, fingerprint)
        net = trainer.new_network(2, 5)

        def train_classifier() -> Weights:
            self.trained += 1
            trainer.train_classifier(net, [example(seed) for seed in range(4)], 5)
            return weights_of(net)

        def train_segmenter() -> Weights:
            self.trained += 1
            trainer.train_segmenter(net, Lesson([example(seed) for seed in labelled]), 6, "a pass")
            return weights_of(net)

        theta0 = shared.theta0(train_classifier)
        net.load_state_dict(dict(theta0))
        return [dict(theta0), dict(shared.first_pass(labelled, train_segmenter))]


def same(one: Weights, other: Weights) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_what_is_shared_does_not_depend_on_what_it_is_not_filed_by(tmp_path: Path) -> None:
    assert OTHERS.keys() == NOT_IN_FIRST_PASS
    assert OTHERS_LATER.keys() == NOT_IN_THETA0 - NOT_IN_FIRST_PASS
    here, elsewhere = SharedFolder(tmp_path / "here"), SharedFolder(tmp_path / "elsewhere")
    theta0, first = here.take()
    assert not same(theta0, first)
    assert all(map(same, here.take(**OTHERS), (theta0, first)))
    assert here.trained == 2
    assert all(map(same, elsewhere.take(**OTHERS), (theta0, first)))
    assert elsewhere.trained == 2
    assert same(here.take(**OTHERS_LATER)[0], theta0)
    assert here.trained == 3


def test_what_is_shared_is_filed_by_all_else(tmp_path: Path) -> None:
    others: dict[str, Any] = {
        "seed": 1,
        "encoder": "resnet34",
        "decoder": "fpn",
        "pretrained": True,
        "encoder_weights": tmp_path / "weights",
        "short_side": 96,
        "crop": 32,
        "batch": 6,
        "any_orientation": False,
        "cam_stride": 32,
        "classifier_steps": 5,
        "classifier_cycles": 2,
        "classifier_lr": 0.5,
        "classifier_after": 16,
        "weight_decay": 0.5,
    }
    (tmp_path / "weights").write_bytes(b"some")
    names = Settings.model_fields.keys() - NOT_IN_THETA0
    assert names == others.keys(), (
        "a new setting: say here, or in training/learning/shared.py, whether a training depends on it"
    )

    def nothing() -> Weights:
        return {"nothing": torch.zeros(1)}

    def share(fingerprint: str = "f", labelled: tuple[int, ...] = (0, 3), **changes: Any) -> None:
        shared = Shared(tmp_path, Trainer(settings(UNTRAINED, **changes), "cpu"), fingerprint)
        shared.theta0(nothing)
        shared.first_pass(labelled, nothing)

    def count(what: str) -> int:
        return len(list(tmp_path.glob(f"{what}-*.safetensors")))

    share()
    share(fingerprint="g")
    for name in names:
        share(**{name: others[name]})
    assert count("theta0") == count("first-pass") == 2 + len(others)
    for name, value in OTHERS_LATER.items():
        share(**{name: value})
    share(labelled=(0, 4))
    share(query="mc-dropout")
    assert count("theta0") == 2 + len(others)
    assert count("first-pass") == 2 + len(others) + len(OTHERS_LATER) + 2
    (tmp_path / "weights").rename(tmp_path / "moved")
    share(encoder_weights=tmp_path / "moved")  # the same file
    assert count("theta0") == 2 + len(others)
    (tmp_path / "moved").write_bytes(b"others")
    share(encoder_weights=tmp_path / "moved")
    assert count("theta0") == 3 + len(others)


def test_a_run_alone_shares_nothing() -> None:
    alone = Shared(None, Trainer(settings(UNTRAINED), "cpu"), "f")
    assert [alone.theta0(lambda tensor=tensor: {"w": tensor})["w"] for tensor in torch.arange(2)] == [0, 1]
