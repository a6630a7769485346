"""The CAM head: WILDCAT with both terms."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from training.model.cam_head import CamHead


@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from([0.0, 0.6, 1.0]), st.integers(0, 99))
def test_wildcat_pools_the_highest_and_the_lowest_places(height: int, width: int, alpha: float, seed: int) -> None:
    cams = np.random.default_rng(seed).normal(size=(2, 3, height, width))
    k = -(-height * width // 10)
    ordered = np.sort(cams.reshape(2, 3, -1))
    expected = ordered[..., -k:].mean(axis=-1) + alpha * ordered[..., :k].mean(axis=-1)
    pooled = CamHead([4], 3, one_in=10, alpha=alpha).pool(torch.from_numpy(cams))
    np.testing.assert_allclose(pooled.numpy(), expected, atol=1e-12)


def test_cams_are_the_mean_over_modalities() -> None:
    head = CamHead([4], 3, modalities=5).eval()
    features = torch.randn(2, 4, 6, 7)
    logits, cams = head([features])
    maps = head.maps(features).detach().numpy().reshape(2, 3, 5, 6, 7)
    np.testing.assert_allclose(cams.detach().numpy(), maps.mean(axis=2), atol=1e-6)
    torch.testing.assert_close(logits, head.pool(cams))


def test_dropout_is_on_while_training_only() -> None:
    head, features = CamHead([64], 2), [torch.randn(1, 64, 4, 4)]
    assert not torch.equal(head.train()(features)[1], head(features)[1])
    assert torch.equal(head.eval()(features)[1], head(features)[1])


def test_a_finer_map_is_added_to_the_enlarged_last_one() -> None:
    head = CamHead([4, 6], 3).eval()
    finer, last = torch.randn(2, 4, 8, 6), torch.randn(2, 6, 4, 3)
    _, cams = head([torch.randn(2, 3, 16, 12), finer, last])  # of more maps, it reads the last ones
    assert cams.shape == (2, 3, 8, 6)
    _, coarse = CamHead([6], 3).eval()([last])
    assert coarse.shape == (2, 3, 4, 3)
    with torch.no_grad():
        head.finer[0].weight.zero_()
        head.finer[0].bias.zero_()
    maps = functional.interpolate(head.maps(last), scale_factor=2, mode="bilinear").unflatten(1, (3, 5)).mean(dim=2)
    torch.testing.assert_close(head([finer, last])[1], maps)
