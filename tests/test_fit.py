"""The two phases: what is learned, what stays as it was, and that all of it follows from the seed."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from drawn import example, settings
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from alserve.errors import DeviceError
from training.fit import Crops, Example, Trainer, derive_seed, mask_loss, pseudo_slots
from training.network import JointNet

EXAMPLES = [example(seed) for seed in range(6)]


def crops(steps: int = 10, **changes: object) -> Crops:
    return Crops([(EXAMPLES, 4)], settings(**changes), steps, seed=3)


def agreement(item: dict[str, Tensor]) -> float:
    """Share of a crop's pixels where the image, white on black, says the same as its mask."""
    brightness = item["image"].float().mean(dim=0)
    return float(((brightness > 100) == item["mask"].bool()).float().mean())


@pytest.mark.parametrize("upside_down", [True, False])
def test_image_and_mask_are_augmented_together(upside_down: bool) -> None:  # noqa: FBT001
    items = [item for item in crops(30, upside_down=upside_down) if 0.1 < item["mask"].mean() < 0.9]
    assert len(items) > 60
    assert min(agreement(item) for item in items) > 0.93


def test_a_crop() -> None:
    item = crops(crop=32)[0]
    assert {name: (value.dtype, tuple(value.shape)) for name, value in item.items()} == {
        "image": (torch.uint8, (3, 32, 32)),
        "label": (torch.int64, ()),
        "mask": (torch.float32, (32, 32)),
        "belief": (torch.float32, (32, 32)),
        "weight": (torch.float32, ()),
    }
    assert set(item["mask"].unique().tolist()) <= {0.0, 1.0}
    assert type(item["image"]) is type(item["mask"]) is Tensor


@pytest.mark.parametrize(("upside_down", "sides"), [(True, {"top", "bottom", "left", "right"}), (False, {"top"})])
def test_the_ways_that_an_image_is_turned(upside_down: bool, sides: set[str]) -> None:  # noqa: FBT001
    bright_top = np.zeros((64, 64, 3), np.uint8)
    bright_top[:32] = 255
    group = [Example(bright_top, 0, bright_top[..., 0] > 0)]
    seen = set()
    for item in Crops([(group, 4)], settings(upside_down=upside_down), 10, seed=0):
        mask = item["mask"]
        half = mask.shape[0] // 2
        found = {"top": mask[:half], "bottom": mask[half:], "left": mask[:, :half], "right": mask[:, half:]}
        seen.add(max(found, key=lambda side: float(found[side].mean())))
    assert seen == sides


def test_a_crop_is_a_function_of_seed_and_place() -> None:
    first = [crops()[index] for index in range(12)]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = crops()
    for index in reversed(range(12)):
        assert all(torch.equal(again[index][name], first[index][name]) for name in first[index])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first[0]["image"], Crops([(EXAMPLES, 4)], settings(), 10, seed=4)[0]["image"])


def test_workers_draw_the_same_crops() -> None:
    alone, helped = DataLoader(crops(3), 4), DataLoader(crops(3), 4, num_workers=2)
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("labelled", "others", "share", "slots"),
    [
        (8, 0, 0.5, 0),
        (8, 42, 0.5, 4),
        (8, 42, 0.25, 2),
        (40, 27, 0.5, 3),
        (56, 11, 0.5, 1),
        (500, 1, 0.5, 1),
        (0, 9, 0.99, 7),
    ],
)
def test_no_pseudo_mask_comes_more_often_than_an_experts(labelled: int, others: int, share: float, slots: int) -> None:
    assert pseudo_slots(settings(batch=8, pseudo_share=share), labelled, others) == slots


def test_groups_fill_their_slots_of_every_batch() -> None:
    experts, pseudo = EXAMPLES[:3], [example(seed, weight=0.5) for seed in range(5)]
    without = [Example(EXAMPLES[0].image, 1)]
    drawn = Crops([(experts, 4), (pseudo, 2), (without, 1)], settings(), steps=15, seed=0)
    weights = [[float(drawn[7 * step + slot]["weight"]) for slot in range(7)] for step in range(15)]
    assert weights == [[1.0] * 4 + [0.5] * 2 + [0.0]] * 15
    assert len(drawn) == 7 * 15
    times = Counter(id(item) for item in drawn.examples)
    assert {times[id(item)] for item in experts} == {4 * 15 // 3}
    assert {times[id(item)] for item in pseudo} == {2 * 15 // 5}


def test_mask_loss_is_the_published_formula() -> None:
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(size=(4, 3, 5)), rng.integers(0, 2, (4, 3, 5)).astype(float)
    p = 1 / (1 + np.exp(-logits))
    each = -(masks * np.log(p) + (1 - masks) * np.log(1 - p)).mean(axis=(1, 2))
    expected = (each[0] + each[1] + 0.1 * each[2]) / 3  # two of L, one of P with lambda 0.1, one without a mask
    found = mask_loss(torch.tensor(logits), torch.tensor(masks), torch.tensor([1, 1, 0.1, 0]))
    assert float(found) == pytest.approx(expected)
    assert float(mask_loss(torch.tensor(logits), torch.tensor(masks), torch.zeros(4))) == 0


def test_a_pixel_that_is_not_believed_teaches_nothing() -> None:
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    beliefs = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 1.0]]])
    mask_loss(logits, torch.ones(1, 2, 3), torch.ones(1), beliefs).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, -beliefs / 12)  # sigmoid(0) - 1 = -1/2, six pixels


def test_belief_and_soft_masks_are_augmented_with_the_image() -> None:
    def soft(item: Example) -> Example:
        assert item.mask is not None
        grey = np.where(item.mask, np.uint8(204), np.uint8(51))
        return Example(item.image, item.label, grey, belief=255 - grey)

    for item in Crops([([soft(item) for item in EXAMPLES], 4)], settings(), 10, seed=3):
        torch.testing.assert_close(item["belief"], 1 - item["mask"])
        assert set(item["mask"].unique().tolist()) <= {np.float32(0.2), np.float32(0.8)}
        assert float(((item["image"].float().mean(dim=0) > 100) == (item["mask"] > 0.5)).float().mean()) > 0.9


def test_seeds_of_different_places_differ() -> None:
    places = list(product(range(3), (1, 2), (1, 2), (0, 1)))
    assert len({derive_seed(*place) for place in places}) == len(places)


def test_devices() -> None:
    with pytest.raises(DeviceError, match=r"'tpu'.*auto, cpu or cuda"):
        Trainer(settings(), "tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA device"):
            Trainer(settings(), "cuda")


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


def test_the_classifier_leaves_the_decoder_alone() -> None:
    trainer = Trainer(settings(), "cpu")
    net = trainer.new_network(2, seed=0)
    before = weights(net)
    trainer.train_classifier(net, EXAMPLES, seed=1)
    names = changed(net, before)
    assert parts(names) == {"encoder", "cam_head"}
    assert any(is_statistic(name) for name in names)


def test_the_classifier_leaves_the_finer_features_as_they_were() -> None:
    pixels = torch.from_numpy(EXAMPLES[0].image).permute(2, 0, 1)[None]

    def features(depth: str) -> tuple[list[Tensor], list[Tensor]]:
        trainer = Trainer(settings(classifier_depth=depth), "cpu")
        net = trainer.new_network(2, seed=0)
        before = net.eval().to(memory_format=torch.channels_last).encode(pixels)
        trainer.train_classifier(net, EXAMPLES, seed=1)
        return before, net.encode(pixels)

    before, after = features("last-stage")
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [True] * 5 + [False]
    before, after = features("encoder")
    assert not torch.equal(before[1], after[1])


def test_a_frozen_encoder_is_bit_identical_after_segmentation() -> None:
    trainer = Trainer(settings(), "cpu")
    net = trainer.new_network(2, seed=0)
    before, scored = weights(net), scores(net)
    trainer.train_segmenter(net, EXAMPLES[:2], [example(9, weight=0.5)], seed=1, what="test")
    assert parts(changed(net, before)) == {"decoder", "mask_head"}
    for one, other in zip(scores(net), scored, strict=True):
        assert torch.equal(one, other)


def test_a_learning_encoder_keeps_its_statistics() -> None:
    trainer = Trainer(settings(encoder_lr=1e-3), "cpu")
    net = trainer.new_network(2, seed=0)
    before = weights(net)
    trainer.train_segmenter(net, EXAMPLES[:2], EXAMPLES[2:], seed=1, what="test")
    names = changed(net, before)
    assert parts(names) == {"encoder", "cam_head", "decoder", "mask_head"}
    assert not [name for name in names if name.startswith("encoder") and is_statistic(name)]


def test_the_seed_decides_every_weight() -> None:
    def train(seed: int, noise: int) -> dict[str, Tensor]:
        trainer = Trainer(settings(encoder_lr=1e-4), "cpu")
        net = trainer.new_network(2, seed)
        torch.manual_seed(noise)
        trainer.train_classifier(net, EXAMPLES, seed)
        torch.rand(noise)
        trainer.train_segmenter(net, EXAMPLES[:2], [], seed, "test")
        return weights(net)

    first, again, other = train(0, 1), train(0, 2), train(1, 1)
    assert [name for name in first if not torch.equal(first[name], again[name])] == []
    assert parts({name for name in first if not torch.equal(first[name], other[name])}) == {
        "encoder",
        "cam_head",
        "decoder",
        "mask_head",
    }


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
    trainer.train_segmenter(net, EXAMPLES, [], 0, "test")
    assert class_loss_now() < 0.8 * class_before
    assert mask_loss_now() < 0.8 * mask_before
