"""The two phases: what is learned, what stays as it was, and that all of it follows from the seed."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import UNTRAINED, example, settings
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from alserve.errors import DeviceError
from training.data.examples import Example
from training.learning.learner import weights_of
from training.model.network import JointNet
from training.model.progress import StepBar
from training.model.trainer import Lesson, Trainer, another_cycle

EXAMPLES = [example(seed) for seed in range(6)]
UNLABELLED = [Example(item.image, item.label, least=1.0) for item in EXAMPLES]


def test_devices() -> None:
    with pytest.raises(DeviceError, match=r"'tpu'.*auto, cpu or cuda"):
        Trainer(settings(), "tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA device"):
            Trainer(settings(), "cuda")


@pytest.mark.parametrize("moment", ["on_train_start", "on_train_end"])
def test_ctrl_c_at_any_time_ends_a_training_as_anything_else(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last step, too; Lightning would end the process with 1, and ignore Ctrl-C from then on."""
    earlier = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(StepBar, moment, lambda *_: signal.raise_signal(signal.SIGINT))
    trainer = Trainer(settings(UNTRAINED), "cpu")
    with pytest.raises(KeyboardInterrupt):
        trainer.train_classifier(trainer.new_network(2, seed=0), EXAMPLES, seed=1)
    assert signal.getsignal(signal.SIGINT) is earlier


def weights(net: JointNet) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def changed(net: JointNet, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}


def parts(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def is_statistic(name: str) -> bool:
    return "running_" in name or "num_batches" in name


def scores(net: JointNet) -> list[Tensor]:
    images = torch.stack([torch.from_numpy(item.image).permute(2, 0, 1) for item in EXAMPLES])
    with torch.no_grad():
        return list(net.eval().to(memory_format=torch.channels_last)(images)[:2])


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_classifier_leaves_the_decoder_alone_and_the_statistics_of_pretrained_weights(pretrained: bool) -> None:  # noqa: FBT001
    trainer = Trainer(settings(pretrained=pretrained), "cpu")
    net = trainer.new_network(2, seed=0)
    before = weights(net)
    trainer.train_classifier(net, EXAMPLES, seed=1)
    names = changed(net, before)
    assert parts(names) == {"encoder", "cam_head"}
    assert any(is_statistic(name) for name in names) is not pretrained


def test_the_classifier_learns_in_cycles_until_it_knows_its_images(capsys: pytest.CaptureFixture[str]) -> None:
    def cycles(examples: list[Example], most: int) -> str:
        trainer = Trainer(settings(classifier_cycles=most, classifier_steps=12, classifier_lr=2e-3), "cpu")
        trainer.train_classifier(trainer.new_network(2, seed=0), examples, seed=1)
        (said,) = (line for line in capsys.readouterr().err.splitlines() if "right while learning" in line)
        return said.removeprefix("alserve: classifier: ").split(" x ")[0]

    contradicting = [Example(item.image, label) for item in EXAMPLES for label in (0, 1)]
    assert cycles(contradicting, 1) == "1"
    assert cycles(contradicting, 2) == "2"
    assert cycles([Example(np.full((64, 64, 3), 255 * label, np.uint8), label) for label in (0, 1)], 2) == "1"


@pytest.mark.parametrize(
    ("accuracies", "another"),
    [
        ([0.96], True),
        ([0.97], False),
        ([0.5, 0.7], True),
        ([0.5, 0.7, 0.71], False),  # within a standard error, 0.023
        ([0.5, 0.7, 0.73], True),
        ([0.9, 0.8], False),
        ([1.0], False),
    ],
)
def test_another_cycle_where_the_last_one_was_of_use(accuracies: list[float], another: bool) -> None:  # noqa: FBT001
    assert another_cycle(accuracies, images=800) is another


def test_the_classifier_leaves_the_finer_features_as_they_were() -> None:
    pixels = torch.from_numpy(EXAMPLES[0].image).permute(2, 0, 1)[None]

    def features(after: int) -> tuple[list[Tensor], list[Tensor]]:
        trainer = Trainer(settings(classifier_after=after), "cpu")
        net = trainer.new_network(2, seed=0)
        before = net.eval().to(memory_format=torch.channels_last).encode(pixels)
        trainer.train_classifier(net, EXAMPLES, seed=1)
        return before, net.encode(pixels)

    for stride, unchanged in ((16, 5), (4, 3), (1, 1)):  # the first of the six is the image itself
        before, after = features(stride)
        equal = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
        assert equal == [True] * unchanged + [False] * (6 - unchanged)


def test_a_frozen_encoder_is_bit_identical_after_segmentation() -> None:
    trainer = Trainer(settings(encoder_lr=0), "cpu")
    net = trainer.new_network(2, seed=0)
    before, scored = weights(net), scores(net)
    trainer.train_segmenter(net, Lesson(EXAMPLES[:2], [example(9, weight=0.5)]), seed=1, what="test")
    assert parts(changed(net, before)) == {"decoder", "mask_head"}
    for one, other in zip(scores(net), scored, strict=True):
        assert torch.equal(one, other)


def test_a_learning_encoder_keeps_its_statistics() -> None:
    trainer = Trainer(settings(encoder_lr=1e-3), "cpu")
    net = trainer.new_network(2, seed=0)
    before = weights(net)
    trainer.train_segmenter(net, Lesson(EXAMPLES[:2], (), UNLABELLED), seed=1, what="test")
    names = changed(net, before)
    assert parts(names) == {"encoder", "cam_head", "decoder", "mask_head"}
    assert not [name for name in names if name.startswith("encoder") and is_statistic(name)]


@pytest.mark.parametrize("method", ["masks-only", "consistency"])
def test_the_seed_decides_every_weight(method: str) -> None:
    def train(seed: int, noise: int) -> dict[str, Tensor]:
        trainer = Trainer(settings(encoder_lr=1e-4, method=method), "cpu")
        net = trainer.new_network(2, seed)
        torch.manual_seed(noise)
        trainer.train_classifier(net, EXAMPLES, seed)
        torch.rand(noise)
        trainer.train_segmenter(net, Lesson(EXAMPLES[:2], (), UNLABELLED), seed, "test")
        return weights(net)

    first, again, other = train(0, 1), train(0, 2), train(1, 1)
    assert [name for name in first if not torch.equal(first[name], again[name])] == []
    assert parts({name for name in first if not torch.equal(first[name], other[name])}) == {
        "encoder",
        "cam_head",
        "decoder",
        "mask_head",
    }


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_any_number_of_steps(steps: int) -> None:
    trainer = Trainer(settings(UNTRAINED, steps=steps, encoder_lr=0), "cpu")
    net = trainer.new_network(2, seed=0)
    before = weights(net)
    trainer.train_segmenter(net, Lesson(EXAMPLES[:2]), seed=1, what="test")
    assert parts(changed(net, before)) == {"decoder", "mask_head"}


def test_a_copy_of_the_weights_can_be_saved_however_they_lie(tmp_path: Path) -> None:
    net = Trainer(settings(UNTRAINED), "cpu").new_network(2, seed=0).to(memory_format=torch.channels_last)
    save_file(weights_of(net), tmp_path / "weights")
    assert not changed(net, load_file(tmp_path / "weights"))


def test_both_phases_learn() -> None:
    trainer = Trainer(settings(classifier_steps=15, steps=15, lr=5e-3, classifier_lr=1e-3), "cpu")
    net = trainer.new_network(2, seed=0)
    labels = torch.tensor([item.label for item in EXAMPLES])
    truths = torch.stack([torch.from_numpy(item.mask) for item in EXAMPLES if item.mask is not None]).float()

    def mask_loss_now() -> float:
        found = [torch.from_numpy(p) for p, _ in trainer.predict(net, [item.image for item in EXAMPLES])]
        return float(functional.binary_cross_entropy(torch.stack(found), truths))

    def class_loss_now() -> float:
        return float(functional.cross_entropy(scores(net)[0], labels))

    class_before, mask_before = class_loss_now(), mask_loss_now()
    trainer.train_classifier(net, EXAMPLES, seed=0)
    trainer.train_segmenter(net, Lesson(EXAMPLES), 0, "test")
    assert class_loss_now() < 0.8 * class_before
    assert mask_loss_now() < 0.8 * mask_before


def test_consistency_teaches_a_frozen_encoders_decoder() -> None:
    def train(weight: float) -> dict[str, Tensor]:
        chosen = settings(
            UNTRAINED, method="consistency", encoder_lr=0, steps=4, certainty=0.5, consistency_weight=weight
        )
        trainer = Trainer(chosen, "cpu")
        net = trainer.new_network(2, seed=0, empty_classes=[1])  # of which an untrained teacher is certain, too
        before = weights(net)
        trainer.train_segmenter(net, Lesson(EXAMPLES[:2], (), UNLABELLED), 1, "test")
        assert parts(changed(net, before)) == {"decoder", "mask_head"}
        return weights(net)

    without, taught = train(0), train(1)
    assert not all(torch.equal(without[name], taught[name]) for name in without if not is_statistic(name))


@pytest.mark.parametrize("empty_classes", [[], [1]])
def test_cams_tell_a_teacher_of_objects_where_a_class_has_none(empty_classes: list[int]) -> None:
    def train(gate: float) -> dict[str, Tensor]:
        trainer = Trainer(settings(UNTRAINED, method="consistency", steps=3, certainty=0.5, cam_gate=gate), "cpu")
        net = trainer.new_network(2, 0, empty_classes)
        trainer.train_segmenter(net, Lesson(EXAMPLES[:2], (), UNLABELLED), 1, "test")
        return weights(net)

    closed, opened = train(0.01), train(1)
    assert all(torch.equal(closed[name], opened[name]) for name in closed) == (not empty_classes)
