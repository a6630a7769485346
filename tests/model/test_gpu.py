"""Training on a GPU, and what comes of it; skipped where there is none."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from command import Cli
from drawn import SMALL, UNTRAINED, example, settings

from alserve import load
from alserve.measure.metrics import iou
from training.data.examples import Example
from training.data.synthetic import draw_dataset
from training.model.network import JointNet
from training.model.trainer import Lesson, Trainer
from training.run.state import weights_of
from training.train import train_run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

EXAMPLES = [example(seed) for seed in range(6)]
UNLABELLED = [Example(item.image, item.label, least=1.0) for item in EXAMPLES]


def trained(device: str) -> tuple[Trainer, JointNet]:
    trainer = Trainer(settings(UNTRAINED, method="consistency", steps=12), device)
    net = trainer.new_network(2, seed=0)
    trainer.train_classifier(net, EXAMPLES, seed=1)
    trainer.train_segmenter(net, Lesson(EXAMPLES, everything=UNLABELLED), seed=2, what="masks")
    return trainer, net


def test_a_training_can_be_repeated_on_the_same_gpu() -> None:
    (trainer, net), (_, again) = trained("cuda"), trained("cuda")
    assert trainer.accelerator == "gpu"
    found = weights_of(again)
    for name, tensor in weights_of(net).items():
        assert torch.equal(tensor, found[name]), name


def test_a_gpu_learns_what_a_cpu_learns() -> None:
    """The same crops in the same order; they differ by their roundings."""
    images = [item.image for item in EXAMPLES]
    (on_cpu, cpu_net), (on_gpu, gpu_net) = trained("cpu"), trained("cuda")
    for (here, _), (there, _) in zip(on_cpu.predict(cpu_net, images), on_gpu.predict(gpu_net, images), strict=True):
        assert np.abs(here - there).mean() < 0.1


def test_a_run_on_a_gpu_gives_a_model_that_gives_the_same_masks_anywhere(cli: Cli, tmp_path: Path) -> None:
    table = draw_dataset(tmp_path / "data", seed=2, train_per_class=4, test_per_class=2, size=(96, 128))
    long_enough = settings(SMALL, method="masks-only", rounds=1, steps=40, classifier_steps=10)
    train_run(table, tmp_path / "run", long_enough, device="cuda")
    model = tmp_path / "run" / "model.onnx"
    load(model, device="cuda")  # it compares its answers there with those of the trained network
    folder = tmp_path / "data" / "images"
    for device in ("cpu", "cuda"):
        assert cli("segment", folder, "--out", tmp_path / device, "--model", model, "--device", device)[0] == 0
    masks = sorted((tmp_path / "cpu").rglob("masks/**/*.png"))
    assert len(masks) == 12
    for path in masks:
        same = tmp_path / "cuda" / path.relative_to(tmp_path / "cpu")
        first, second = (cv2.imread(str(each), cv2.IMREAD_UNCHANGED) > 0 for each in (path, same))
        assert iou(first, second) > 0.95
