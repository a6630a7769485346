"""Scores from maps are those of the network's own head."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alserve.modelfile import CamStride
from alserve.pooling import ONE_IN, scores_of
from training.model.cam_head import CamHead


@given(st.integers(1, 9), st.integers(1, 17), st.integers(2, 5), st.sampled_from([16, 32]))
def test_pooling_is_that_of_the_head(height: int, width: int, classes: int, stride: CamStride) -> None:
    cams = np.random.default_rng(height * width).normal(0, 3, (classes, height, width)).astype(np.float32)
    head = CamHead([4], classes, one_in=ONE_IN[stride])
    expected = head.pool(torch.from_numpy(cams)[None]).softmax(dim=1)[0].numpy()
    np.testing.assert_allclose(scores_of(cams, stride), expected, atol=1e-5)


def test_one_place_decides_however_large_the_map() -> None:
    cams = np.zeros((2, 7, 7), np.float32)
    cams[1, 3, 3] = 30
    assert scores_of(cams, 16)[1] == pytest.approx(1)
