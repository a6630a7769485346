"""The teacher, CutMix and the ramp."""

import pytest
import torch
from torch import nn

from training.model.consistency import CUT, cut_mix, mean_teacher, open_under_cams, ramp_up, told_by_class


class Small(nn.Module):
    """A weight and a batch norm, in place of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.norm = nn.BatchNorm1d(1)


def test_the_teacher_is_the_mean_of_the_steps_and_then_forgets() -> None:
    net = Small()
    teacher = mean_teacher(net, momentum=0.75)  # type: ignore[arg-type]
    assert not teacher.training
    seen = []
    for value in (1.0, 2.0, 6.0):
        net.weight.data.fill_(value)
        teacher.update_parameters(net)
        seen.append(float(teacher.module.weight))
    assert seen == pytest.approx([1, 1.5, 3])
    net.weight.data.fill_(0)
    teacher.update_parameters(net)
    assert float(teacher.module.weight) == pytest.approx(0.75 * 3)
    net.weight.data.fill_(100)
    teacher.update_parameters(net)
    assert float(teacher.module.weight) == pytest.approx(0.75 * 0.75 * 3 + 25)
    assert not teacher.module.weight.requires_grad


def test_the_teacher_has_the_statistics_of_the_network() -> None:
    net = Small()
    teacher = mean_teacher(net, momentum=0.99)  # type: ignore[arg-type]
    net.norm(torch.randn(50, 1) + 3)
    teacher.update_parameters(net)
    assert torch.equal(teacher.module.norm.running_mean, net.norm.running_mean)


def test_cut_mix_moves_images_and_masks_alike() -> None:
    torch.manual_seed(0)
    masks = torch.arange(6.0)[:, None, None].expand(6, 40, 50).contiguous()
    images = masks[:, None].expand(6, 3, 40, 50).contiguous()
    mixed_images, mixed_masks, mixed = cut_mix(images, masks, probability=1.0)
    assert mixed.all()
    assert torch.equal(mixed_images, mixed_masks[:, None].expand_as(images))
    for place, mask in enumerate(mixed_masks):
        foreign = mask != place
        assert set(mask[foreign].tolist()) == {float((place - 1) % 6)}
        rows, columns = foreign.any(dim=1).sum(), foreign.any(dim=0).sum()
        assert int(rows * columns) == int(foreign.sum())  # one rectangle
        assert CUT[0] * 40 - 1 <= rows <= CUT[1] * 40
        assert CUT[0] * 50 - 1 <= columns <= CUT[1] * 50
    assert torch.equal(masks[:, 0, 0], torch.arange(6.0))


@pytest.mark.parametrize(("batch", "probability"), [(1, 1.0), (4, 0.0)])
def test_cut_mix_may_leave_all_as_it_is(batch: int, probability: float) -> None:
    images, masks = torch.rand(batch, 3, 32, 32), torch.rand(batch, 32, 32)
    mixed_images, mixed_masks, mixed = cut_mix(images, masks, probability)
    assert torch.equal(mixed_images, images)
    assert torch.equal(mixed_masks, masks)
    assert not mixed.any()


def test_the_ramp() -> None:
    assert [ramp_up(step, 8, 0.5) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert ramp_up(0, 1) == 1


def test_a_class_tells_what_its_teacher_may_say() -> None:
    sees, misses = [[0.9, 0.2]], [[0.6, 0.2]]
    found = torch.tensor([sees, misses, sees, misses])
    told = told_by_class(found, torch.tensor([True, True, False, False]), certainty=0.8)
    torch.testing.assert_close(told, torch.tensor([sees, [[0.5, 0.5]], [[0.0, 0.0]], [[0.0, 0.0]]]))


def test_under_a_high_cam_the_background_of_a_teacher_that_finds_too_little_teaches_nothing() -> None:
    found = torch.tensor([[[0.9, 0.1, 0.0, 0.1]]])
    heights = torch.tensor([[[1.0, 0.5, 0.4, 0.0]]])
    more = torch.tensor([0.28])
    torch.testing.assert_close(open_under_cams(found, more, heights, 0.4), torch.tensor([[[0.9, 0.5, 0.0, 0.1]]]))
    assert torch.equal(open_under_cams(found, more, heights, 1), found)
    assert torch.equal(open_under_cams(found, torch.tensor([0.27]), heights, 0.4), found)  # 0.275 is enough
    coarse = torch.tensor([[[1.0, 0.0]]])
    assert torch.equal(open_under_cams(found, more, coarse, 0.4) > found, torch.tensor([[[False, True, False, False]]]))
