"""The maps of objects: a class against those without foreground, and heights above the median."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from training.model.object_cams import heights, object_cams


def test_classes_without_foreground_count_against_the_image_s_own() -> None:
    cams = torch.arange(12.0).view(2, 3, 1, 2)
    found = object_cams(cams, torch.tensor([0, 2]), [1])
    torch.testing.assert_close(found, torch.tensor([[[-2.0, -2.0]], [[2.0, 2.0]]]))
    torch.testing.assert_close(object_cams(cams, torch.tensor([0, 0]), [1, 2]), torch.full((2, 1, 2), -3.0))


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=30), st.integers(-5, 5), st.integers(1, 9))
def test_heights_know_neither_level_nor_scale(values: list[int], level: int, scale: int) -> None:
    maps = torch.tensor(values, dtype=torch.float32)[None, :, None]
    found = heights(maps)
    assert found.shape == maps.shape
    assert float(found.min()) == 0
    assert float(found.max()) == (1 if max(values) > maps.quantile(0.5) else 0)
    torch.testing.assert_close(heights(scale * maps + level), found)
