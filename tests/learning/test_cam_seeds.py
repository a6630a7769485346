"""Seeds: foreground where a CAM is high, background where it is low, and nothing known between the two."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import UNTRAINED, settings
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pictures import picture

from alserve.arrays import Float32
from alserve.measure.dataset import load_dataset
from training.data.synthetic import draw_dataset
from training.learning.cam_seeds import HIGH, LOW, UNKNOWN, seed, seeds
from training.learning.data import TrainingData, read_images
from training.learning.pseudo import foreground, pixel_weights
from training.model.trainer import Trainer


@given(arrays(np.float32, (6, 7), elements=st.floats(-50, 50, width=32)))
def test_a_seed_follows_its_cam(cam: Float32) -> None:
    levels = seed(cam)
    assert set(np.unique(levels)) <= {0, UNKNOWN, 255}
    order = np.argsort(cam.ravel(), kind="stable")
    assert (np.diff(levels.ravel()[order].astype(int)) >= 0).all()  # no higher place has a lower level
    assert (levels.ravel()[order[: cam.size // 2]] == 0).all()
    weights = pixel_weights(levels, "certain")
    assert weights is not None
    assert ((weights == 0) == (levels == UNKNOWN)).all()
    assert (foreground(levels) == (levels == 255)).all()


def test_a_flat_cam_has_no_foreground() -> None:
    assert (seed(np.full((4, 5), 3.0, np.float32)) == 0).all()


def test_a_peak() -> None:
    cam = np.zeros((1, 100), np.float32)
    cam[0, 90:] = np.linspace(0.1, 1, 10)
    levels = seed(cam)[0]
    assert (levels == 255).sum() == sum(value > HIGH for value in cam[0])
    assert (levels == 0).sum() == sum(value <= LOW for value in cam[0])


def test_seeds_teach_beside_the_masks_that_are_known_to_be_empty(tmp_path: Path) -> None:
    dataset = load_dataset(draw_dataset(tmp_path, seed=5, train_per_class=3, test_per_class=1, size=(64, 96)))
    given = settings(UNTRAINED, empty_classes=["regular"])
    data = TrainingData(dataset, read_images(dataset, 64), given)
    drawn = {index: seed(data.images[index].mean(axis=2, dtype=np.float32)) for index in (0, 2)}
    examples = data.with_seeds(drawn)
    assert len(examples) == 2 + 3
    for example in examples:
        target, weights = example.layers()
        assert example.weight == 1
        if example.label in data.foreground_classes:
            assert (target[weights > 0] > 0).any()
            assert 0 < weights.mean() < 255
        else:
            assert not target.any()
            assert (weights == 255).all()


@pytest.mark.parametrize("empty", [(2,), (1, 2)])
def test_the_cams_of_classes_without_foreground_count_against_that_of_the_image(empty: tuple[int, ...]) -> None:
    trainer = Trainer(settings(UNTRAINED), "cpu")
    net = trainer.new_network(3, seed=0, empty_classes=empty)
    images = [picture(64, 96, 0), picture(96, 64, 1)]
    found = list(seeds(net, images, [0, 0], trainer))
    assert [levels.shape for levels in found] == [(64, 96), (96, 64)]
    assert all((levels == 255).any() for levels in found)
    with torch.no_grad():
        for label in empty:
            maps = slice(5 * label, 5 * label + 5)  # five a class
            for layer in (net.cam_head.maps, *net.cam_head.finer):
                layer.weight[maps], layer.bias[maps] = layer.weight[:5], layer.bias[:5]
    assert not any(levels.any() for levels in seeds(net, images, [0, 0], trainer))
