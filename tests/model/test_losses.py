"""The losses of masks, against their formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.model.losses import SMOOTH, consistency_loss, dice_loss, mask_loss


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
    pixel_weights = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 1.0]]])
    mask_loss(logits, torch.ones(1, 2, 3), torch.ones(1), pixel_weights).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, -pixel_weights / 12)  # sigmoid(0) - 1 = -1/2, six pixels


def soft_dice(probabilities: torch.Tensor, masks: torch.Tensor) -> float:
    hits, sizes = float((probabilities * masks).sum()), float((probabilities + masks).sum())
    return (2 * hits + SMOOTH) / (sizes + SMOOTH)


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_dice_loss_is_of_each_image_and_of_all_together(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 5, generator=random)
    masks = (torch.rand(3, 4, 5, generator=random) < 0.3).float()
    masks[2] = 0
    p = logits.sigmoid()
    each = sum(1 - soft_dice(p[i], masks[i]) for i in range(2) if masks[i].any()) / 3
    found = float(dice_loss(logits, masks, torch.ones(3)))
    assert found == pytest.approx(each + 1 - soft_dice(p, masks), abs=1e-5)
    assert 0 <= found <= 2


def test_dice_loss_takes_no_notice_of_images_without_a_mask() -> None:
    logits, masks = torch.randn(3, 4, 5), (torch.rand(3, 4, 5) < 0.5).float()
    masks[:, 0, 0] = 1
    weights = torch.tensor([1.0, 1.0, 0.0])
    assert float(dice_loss(logits, masks, weights)) == pytest.approx(
        float(dice_loss(logits[:2], masks[:2], weights[:2]))
    )
    assert float(dice_loss(logits, masks, torch.zeros(3))) == pytest.approx(0)


@pytest.mark.parametrize("objects", [0, 1, 400])
def test_dice_loss_of_a_right_mask_is_nothing_however_small_its_object(objects: int) -> None:
    masks = torch.zeros(2, 64, 64)
    masks[0].view(-1)[:objects] = 1
    assert float(dice_loss(40 * masks - 20, masks, torch.ones(2))) == pytest.approx(0, abs=1e-3)
    missed = float(dice_loss(torch.full_like(masks, -20), masks, torch.ones(2)))
    assert missed == pytest.approx(0 if objects == 0 else 1.5 * objects / (objects + SMOOTH), abs=1e-3)


def test_only_what_the_teacher_is_certain_of_teaches() -> None:
    logits = torch.zeros(1, 1, 4, requires_grad=True)
    loss = consistency_loss(logits, torch.tensor([[[0.97, 0.6, 0.4, 0.01]]]), certainty=0.95)
    assert float(loss.detach()) == pytest.approx(2 * np.log(2) / 4)
    loss.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[[-0.125, 0, 0, 0.125]]]))


@pytest.mark.parametrize("certainty", [0.5, 0.85])
def test_a_teacher_that_is_certain_of_nothing_teaches_nothing(certainty: float) -> None:
    logits = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = consistency_loss(logits, torch.full((2, 8, 8), 0.5), certainty, dice_weight=1)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0)
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_small_object_that_the_teacher_sees_and_the_network_misses_counts_by_its_dice() -> None:
    taught = torch.full((1, 64, 64), 0.01)
    taught[0, :4, :4] = 0.99
    missed, seen = torch.full((1, 64, 64), -8.0), torch.where(taught > 0.5, 8.0, -8.0)

    def worth(dice_weight: float) -> float:
        return float(
            consistency_loss(missed, taught, 0.85, dice_weight) - consistency_loss(seen, taught, 0.85, dice_weight)
        )

    assert worth(0) < 0.05
    assert worth(1) > 1
