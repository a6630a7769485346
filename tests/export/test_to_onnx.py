"""The exported file computes what the network computed, at any size and batch; anything else is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from drawn import UNTRAINED, example, settings
from pictures import picture
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.vision_transformer import _create_vision_transformer
from torch import nn

import training.export.to_onnx
from alserve import load
from alserve.errors import ModelError
from alserve.modelfile import INPUT, ModelSpec, Provenance
from alserve.runtime.engine import Engine
from training.export import graph
from training.export.graph import onnx_model
from training.export.to_onnx import TOLERANCE, Served, cam_mask, export_model
from training.model.network import JointNet
from training.model.trainer import Lesson, Trainer

IMAGES = [picture(50, 70, seed) for seed in range(2)]


def new_net(seed: int = 0) -> JointNet:
    torch.manual_seed(seed)
    return JointNet(2, UNTRAINED["encoder"], pretrained=False).eval()


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    provenance = Provenance(
        encoder=UNTRAINED["encoder"],
        method="wsl",
        seed=0,
        rounds=1,
        masks_used=0,
        train_images=2,
        data_fingerprint="0",
        versions={},
    )
    return ModelSpec(
        classes=("a", "b"), threshold=0.5, short_side=64, cam_range=(0, 1), cam_stride=16, provenance=provenance
    )


@pytest.fixture(scope="module")
def net() -> JointNet:
    return new_net().train()


@pytest.fixture(scope="module")
def exported(net: JointNet, spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    stored = export_model(net, spec, path, IMAGES, mask_from_cams=True)
    assert stored == Engine(path, device="cpu").spec
    return path


def test_one_file_with_the_figures_inside(exported: Path, spec: ModelSpec) -> None:
    assert [path.name for path in exported.parent.iterdir()] == ["model.onnx"]
    stored = load(exported, device="cpu").spec
    assert stored.model_copy(update={"parity": ()}) == spec
    assert len({(figure.height, figure.width) for figure in stored.parity}) == 2
    assert {figure.batch for figure in stored.parity} == {1, 3}
    assert len(stored.parity) == 4
    assert all(0 <= figure.max_difference <= TOLERANCE for figure in stored.parity)


def test_no_path_of_the_machine_is_inside(exported: Path) -> None:
    data = exported.read_bytes()
    for folder in (Path(torch.__file__).parent, Path(training.export.to_onnx.__file__).parent):
        assert str(folder).encode() not in data
    assert b"stack_trace" not in data


def test_the_network_is_left_as_it_was(exported: Path, net: JointNet) -> None:
    assert exported.is_file()
    assert net.training
    fresh = new_net().state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in net.state_dict().items())


def test_pixels_go_in_as_they_are(exported: Path) -> None:
    (given,) = onnx.load(exported, load_external_data=False).graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sizes = given.type.tensor_type.shape.dim
    assert [bool(size.dim_param) for size in sizes] == [True, True, True, False]
    assert sizes[3].dim_value == 3


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 64, 160), (5, 96, 64)])
def test_any_size_and_batch(exported: Path, shape: tuple[int, int, int]) -> None:
    pixels = np.stack([picture(*shape[1:], seed) for seed in range(shape[0])])
    with torch.inference_mode():
        expected = Served(new_net(), mask_from_cams=True).eval()(torch.from_numpy(pixels))
    found = Engine(exported, device="cpu").run(pixels)
    assert [part.shape for part in found] == [tuple(part.shape) for part in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("decoder", ["deeplabv3plus", "upernet"])
def test_other_decoders(decoder: str, spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    torch.manual_seed(0)
    stored = export_model(JointNet(2, UNTRAINED["encoder"], decoder, pretrained=False), spec, path, IMAGES)
    assert all(figure.max_difference <= TOLERANCE for figure in stored.parity)
    found = Engine(path, device="cpu", self_check=False).run(np.stack([picture(32, 96, seed) for seed in range(2)]))
    assert [part.shape for part in found] == [(2, 2), (2, 2, 2, 6), (2, 32, 96)]


@register_model
def little_dinov2(pretrained: bool = False, **options: Any) -> nn.Module:  # noqa: FBT001, FBT002  as timm calls it
    """As timm's vit_small_patch14_reg4_dinov2, but narrow and of four blocks."""
    shape = {"patch_size": 14, "img_size": 70, "embed_dim": 32, "depth": 4, "num_heads": 2}
    more = {"init_values": 1.0, "reg_tokens": 4, "no_embed_class": True}
    return _create_vision_transformer("little_dinov2", pretrained=pretrained, **{**shape, **more, **options})


def test_a_transformer_learns_and_is_exported_for_any_size(spec: ModelSpec, tmp_path: Path) -> None:
    """Its first weights from a file, as where no model hub can be reached; 14 pixels a patch, as DINOv2 has them."""
    stored = timm.create_model("little_dinov2").state_dict()
    save_file(stored, tmp_path / "weights")
    trainer = Trainer(
        settings(encoder="little_dinov2", encoder_weights=tmp_path / "weights", classifier_after=16, encoder_lr=0),
        "cpu",
    )
    net = trainer.new_network(2, 5)
    examples = [example(seed) for seed in range(4)]
    trainer.train_classifier(net, examples, 5)
    found = net.encoder.model.state_dict()
    learned = {name for name, tensor in found.items() if not torch.equal(tensor, stored[name])}
    assert learned
    assert all(name.startswith("blocks.3.") for name in learned)
    trainer.train_segmenter(net, Lesson(examples), 6, "a pass")
    assert all(torch.equal(tensor, found[name]) for name, tensor in net.encoder.model.state_dict().items())
    path = tmp_path / "model.onnx"
    parity = export_model(net, spec, path, IMAGES).parity
    assert max(figure.max_difference for figure in parity) < TOLERANCE / 10
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    for height, width in ((32, 96), (160, 64)):
        pixels = np.stack([picture(height, width, seed) for seed in range(2)])
        sizes = [part.shape for part in session.run(None, {INPUT: pixels})]
        assert sizes == [(2, 2), (2, 2, height // 16, width // 16), (2, height, width)]


class Small(nn.Module):
    """A network that is quickly traced: a convolution and a normalisation, which an export makes one of."""

    def __init__(self, seed: int, channels: int = 2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels))
        nn.init.normal_(self.layers[1].running_mean)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        cams = self.layers(images.permute(0, 3, 1, 2).float())
        return cams.mean(dim=(2, 3)), cams, cams[:, 0]


def test_a_graph_that_was_traced_before_takes_other_weights_and_gives_the_same_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graph, "_traced", {})

    def file(seed: int, channels: int = 2) -> bytes:
        return onnx_model(Small(seed, channels).eval(), 64).SerializeToString(deterministic=True)

    first, found = file(0), file(1)
    assert len(graph._traced) == 1
    graph._traced.clear()
    assert file(1) == found != first
    file(1, channels=3)
    assert len(graph._traced) == 2


def test_a_file_that_computes_something_else_is_refused(
    exported: Path, spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the exporter had gone wrong: it gives another network's graph."""
    monkeypatch.setattr(training.export.to_onnx, "onnx_model", lambda *_: onnx.load(exported))
    with pytest.raises(ModelError, match=r"differs from the trained one by .* \(allowed: 0.001\)"):
        export_model(new_net(seed=1), spec, tmp_path / "model.onnx", IMAGES, mask_from_cams=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_no_number_is_refused(
    exported: Path, spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = new_net()
    torch.nn.init.constant_(net.cam_head.maps.weight, float("nan"))
    monkeypatch.setattr(training.export.to_onnx, "onnx_model", lambda *_: onnx.load(exported))
    with pytest.raises(ModelError, match="differs"):
        export_model(net, spec, tmp_path / "model.onnx", IMAGES, mask_from_cams=True)


def test_the_mask_of_cams_is_the_predicted_class_scaled() -> None:
    cams = torch.randn(2, 3, 4, 5)
    logits = torch.tensor([[0.0, 2, 1], [3, 0, 1]])
    found = cam_mask(cams, logits, (4, 5))
    for index, predicted in enumerate((1, 0)):
        cam = cams[index, predicted]
        torch.testing.assert_close(found[index], (cam - cam.min()) / (cam.max() - cam.min()), atol=1e-5, rtol=0)
    assert cam_mask(cams, logits, (64, 96)).shape == (2, 64, 96)
    assert (cam_mask(torch.ones(1, 2, 3, 3), torch.zeros(1, 2), (3, 3)) == 0).all()
