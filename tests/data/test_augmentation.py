"""Crops: image, mask and pixel_weights turned together, and each a function of the seed and its place."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from drawn import example, settings
from torch import Tensor
from torch.utils.data import DataLoader

from training.data.augmentation import Crops, object_pixel, pseudo_slots
from training.data.examples import Example
from training.seeds import derive_seed

EXAMPLES = [example(seed) for seed in range(6)]


def crops(steps: int = 10, **changes: object) -> Crops:
    return Crops([(EXAMPLES, 4)], settings(**changes), steps, seed=3)


def agreement(item: dict[str, Tensor]) -> float:
    """Share of a crop's pixels where the image, white on black, says the same as its mask."""
    brightness = item["image"].float().mean(dim=0)
    return float(((brightness > 100) == item["mask"].bool()).float().mean())


@pytest.mark.parametrize("any_orientation", [True, False])
def test_image_and_mask_are_augmented_together(any_orientation: bool) -> None:  # noqa: FBT001
    items = [item for item in crops(30, any_orientation=any_orientation) if 0.1 < item["mask"].mean() < 0.9]
    assert len(items) > 60
    assert min(agreement(item) for item in items) > 0.93


@pytest.mark.parametrize("whole", [True, False])
def test_a_mask_lies_where_its_object_is_to_a_fraction_of_a_pixel(whole: bool) -> None:  # noqa: FBT001
    """An image that shows its mask is resized as it is; half a pixel beside it, small objects would have no outline."""
    objects = np.zeros((200, 300), np.bool_)
    for row, column in product((20, 97, 161), (31, 150, 243)):
        objects[row : row + 7, column : column + 9] = True
    group = [Example(objects[..., None].repeat(3, axis=2) * np.uint8(255), 0, objects)]
    items = Crops([(group, 4)], settings(short_side=128), 10, seed=0, whole=whole, views=True)
    assert sum(bool(item["mask"].any()) for item in items) > 30
    for item in items:
        torch.testing.assert_close(item["mask"], item["weak"].float().mean(dim=0) / 255, atol=0.005, rtol=0)


def test_a_crop() -> None:
    item = crops(crop=32)[0]
    assert {name: (value.dtype, tuple(value.shape)) for name, value in item.items()} == {
        "image": (torch.uint8, (3, 32, 32)),
        "label": (torch.int64, ()),
        "mask": (torch.float32, (32, 32)),
        "pixel_weights": (torch.float32, (32, 32)),
        "weight": (torch.float32, ()),
    }
    assert 0.0 <= float(item["mask"].min()) < float(item["mask"].max()) <= 1.0
    assert type(item["image"]) is type(item["mask"]) is Tensor


@pytest.mark.parametrize(("any_orientation", "sides"), [(True, {"top", "bottom", "left", "right"}), (False, {"top"})])
def test_the_ways_that_an_image_is_turned(any_orientation: bool, sides: set[str]) -> None:  # noqa: FBT001
    bright_top = np.zeros((64, 64, 3), np.uint8)
    bright_top[:32] = 255
    group = [Example(bright_top, 0, bright_top[..., 0] > 0)]
    seen = set()
    for item in Crops([(group, 4)], settings(any_orientation=any_orientation), 10, seed=0):
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
    times = Counter(id(group[place]) for group, place in drawn.places)
    for members_of, draws in ((experts, 4 * 15), (pseudo, 2 * 15)):  # every class as often, and every image of a class
        for label in (0, 1):
            members = [item for item in members_of if item.label == label]
            assert {times[id(item)] - draws // 2 // len(members) for item in members} <= {0, 1}


def test_belief_and_soft_masks_are_augmented_with_the_image() -> None:
    def soft(item: Example) -> Example:
        assert item.mask is not None
        grey = np.where(item.mask, np.uint8(204), np.uint8(51))
        return Example(item.image, item.label, grey, pixel_weights=255 - grey)

    for item in Crops([([soft(item) for item in EXAMPLES], 4)], settings(), 10, seed=3):
        torch.testing.assert_close(item["pixel_weights"], 1 - item["mask"], atol=0.005, rtol=0)  # both are rounded
        assert 0.2 <= float(item["mask"].min()) < float(item["mask"].max()) <= np.float32(0.8)
        assert float(((item["image"].float().mean(dim=0) > 100) == (item["mask"] > 0.5)).float().mean()) > 0.9


def test_seeds_of_different_places_differ() -> None:
    places = list(product(range(3), (1, 2), (1, 2), (0, 1)))
    assert len({derive_seed(*place) for place in places}) == len(places)


SPECK = np.zeros((200, 300), np.bool_)
SPECK[150:152, 20:22] = SPECK[10:14, 280:290] = True


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 0.95, 1.0), (0.0, 0.0, 0.6)])
def test_crops_around_an_object_hold_one_however_small(share: float, least: float, most: float) -> None:
    """All but a pixel at the border, which may be lost as the crop is scaled."""
    group = [Example(np.zeros((200, 300, 3), np.uint8), 0, SPECK)]
    chosen = settings(short_side=128, crop=64, object_crops=share)
    held = [bool(item["mask"].any()) for item in Crops([(group, 4)], chosen, 15, seed=0)]
    assert least <= sum(held) / len(held) <= most


def test_every_object_is_as_likely_as_any_other() -> None:
    drawn = [object_pixel(SPECK) for _ in range(200)]
    assert 70 < sum(row >= 150 for row, _ in drawn) < 130


def test_an_image_without_objects_is_cut_anywhere() -> None:
    group = [Example(np.zeros((64, 96, 3), np.uint8), 0, np.zeros((64, 96), np.bool_))]
    assert not any(item["mask"].any() for item in Crops([(group, 4)], settings(object_crops=1.0), 3, seed=0))


def test_both_views_have_one_field_of_view() -> None:
    for item in Crops([(EXAMPLES, 4)], settings(), 5, seed=0, whole=True, views=True):
        assert item["weak"].shape == item["image"].shape == (3, 64, 64)
        assert agreement({"image": item["weak"], "mask": item["mask"]}) > 0.93
    pairs = list(Crops([(EXAMPLES, 4)], settings(), 5, seed=0, whole=True, views=True))
    assert any(not torch.equal(item["weak"], item["image"]) for item in pairs)


@pytest.mark.parametrize("sides", [(64, 128), (96, 64)])
def test_a_whole_view_loses_no_object(sides: tuple[int, int]) -> None:
    mask = np.zeros(sides, np.bool_)
    mask[-4:, -4:] = True
    group = [Example(np.zeros((*sides, 3), np.uint8), 0, mask)]
    assert all(item["mask"].any() for item in Crops([(group, 4)], settings(), 10, seed=0, whole=True))


def test_a_whole_view_of_a_long_image_is_squeezed_by_half_at_most() -> None:
    mask = np.zeros((64, 512), np.bool_)
    mask[:, 256:] = True
    group = [Example(np.zeros((64, 512, 3), np.uint8), 0, mask)]
    shares = [float(item["mask"].mean()) for item in Crops([(group, 4)], settings(), 10, seed=0, whole=True)]
    assert sum(share in {0.0, 1.0} for share in shares) > 20  # a quarter of the image seldom shows both halves


def test_a_rare_class_is_seen_as_often() -> None:
    drawn = Crops([([example(0)] + [example(2 * seed + 1) for seed in range(9)], 4)], settings(), steps=10, seed=0)
    assert Counter(group[place].label for group, place in drawn.places) == {0: 20, 1: 20}
