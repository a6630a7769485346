"""A batch that two processes share: each result is that of one process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import UNTRAINED, pixels, settings
from jobs import Layer, Step, Turns, whole_of_each
from torch import Tensor, nn

from training.distributed.group import ALONE
from training.distributed.local import LocalGroup
from training.model.phases import ClassifierPhase, SegmenterPhase

SIDE = 64
RELATIVE, ABSOLUTE = 2e-3, 1e-6
"""Rounding of float32 where large terms cancel, over the largest value and beside it; mistakes are far larger."""


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalGroup]:
    """A group of two, which do what is in tests/jobs.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        patch.setenv("OMP_NUM_THREADS", "1")
        group = LocalGroup(0, 2, "cpu")
        yield group
        group.close(0)


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        bound = RELATIVE * float(values.abs().max()) + ABSOLUTE
        assert float((found[name] - values).abs().max()) <= bound, name


def masks(count: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(coarse, SIDE)[:, 0] > 0.6).float()


def batch(count: int, *, seed: int = 0, weak: bool = False) -> dict[str, Tensor]:
    return {
        "image": pixels(count, 3, SIDE, SIDE, seed=seed),
        **({"weak": pixels(count, 3, SIDE, SIDE, seed=seed), "least": torch.ones(count)} if weak else {}),
        "label": torch.arange(count) % 2,
        "mask": masks(count, seed),
        "pixel_weights": masks(count, seed + 1),
        "weight": torch.tensor([1.0, 0.0, 0.5, 1.0])[:count],
    }


def test_the_whole_batch_is_in_the_order_of_the_ranks(pair: LocalGroup) -> None:
    assert pair.run(whole_of_each).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False), Turns()], ids=repr)
def test_layers_that_look_at_a_whole_batch(pair: LocalGroup, layer: nn.Module, layout: torch.memory_format) -> None:
    values = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(1)) * 3 + 50
    job = Layer(layer, values.to(memory_format=layout))
    found = pair.run(Layer(_copied(layer), job.values))
    assert_alike(found, ALONE.run(Layer(_copied(layer), job.values)))


def _copied(layer: nn.Module) -> nn.Module:
    copy = type(layer)(3, affine=layer.affine) if isinstance(layer, nn.BatchNorm2d) else Turns()
    copy.load_state_dict(layer.state_dict())
    return copy


@pytest.mark.parametrize(
    ("phase", "changes"),
    [
        (ClassifierPhase, {}),
        (SegmenterPhase, {"method": "masks-only", "encoder_lr": 0}),
        (SegmenterPhase, {"method": "label-propagation", "query": "mc-dropout"}),
        (SegmenterPhase, {"method": "consistency", "certainty": 0.5, "cut_mix": 1.0}),
    ],
    ids=["classes", "masks", "masks-and-classes", "consistency"],
)
def test_a_step_has_the_loss_and_the_gradients_of_one_process(
    pair: LocalGroup, phase: type[ClassifierPhase] | type[SegmenterPhase], changes: dict[str, Any]
) -> None:
    """Images without a mask, without foreground and with pixels that do not count are not spread evenly."""
    given = settings(UNTRAINED, **changes)
    everything = {"everything": batch(4, seed=5, weak=True)} if given.looks_at_all_images else {}
    shared = batch(4) if phase is ClassifierPhase else {"labelled": batch(4), **everything}
    alone, found = (group.run(Step(phase, given, shared)) for group in (ALONE, pair))
    assert len(alone) > 20
    assert_alike(found, alone)
