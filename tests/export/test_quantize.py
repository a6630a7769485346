"""Reduced precisions: small, close to the full model, honest about what they cost, refused where it is too much."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from command import Cli, assert_refused
from drawn import UNTRAINED, settings

from alserve import Predictor, load
from alserve.measure.dataset import Sample, load_dataset
from alserve.modelfile import Cost
from training.data.synthetic import draw_dataset
from training.export.quantize import float_candidates, loses_too_much, quantize_model
from training.train import train_run

COST = Cost(
    split="test",
    images=10,
    dice=(0.9, 0.9),
    iou=(0.8, 0.8),
    accuracy=(1, 1),
    label_agreement=1,
    mask_iou=1,
    max_score_difference=0,
    megabytes=(10, 5),
    images_per_second=(1, 2),
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
    return load_dataset(draw_dataset(tmp_path_factory.mktemp("data"), seed=5, train_per_class=4)).samples


@pytest.mark.parametrize(("precision", "share", "likeness"), [("int8", 0.45, 0.97), ("fp16", 0.55, 0.999)])
def test_a_quantized_model_is_small_and_close(
    predictor: Predictor, samples: Sequence[Sample], tmp_path: Path, precision: str, share: float, likeness: float
) -> None:
    target = tmp_path / "reduced.onnx"
    train, test = ([sample for sample in samples if sample.split == split] for split in ("train", "test"))
    references = predictor.engine.references
    cost, loss, carried = quantize_model(
        predictor.engine.path,
        target,
        precision,  # type: ignore[arg-type]
        train,
        test,
        references,
    )
    assert (loss, len(carried)) == (None, len(references))
    reduced = load(target, device="cpu", threads=1)
    assert len(reduced.engine.references) == len(references)
    assert (reduced.spec.precision, reduced.spec.cost) == (precision, cost)
    assert reduced.spec.model_copy(update={"precision": "fp32", "cost": None}) == predictor.spec
    assert target.stat().st_size < share * predictor.engine.path.stat().st_size
    assert (cost.split, cost.images, cost.label_agreement) == ("test", len(test), 1)
    assert cost.mask_iou > likeness
    assert 0 < cost.max_score_difference < 0.1
    assert loses_too_much(cost) is None


def test_what_may_stay_in_float(predictor: Predictor) -> None:
    """Of a separable U-Net: nothing, the ends of the network, its last stage, all of its four stages."""
    model = onnx.load(predictor.engine.path)
    kinds = {node.name: node.op_type for node in model.graph.node}
    candidates = float_candidates(model)
    assert [sum(kinds[name] == "Conv" for name in names) for names in candidates] == [0, 5, 9, 21]
    assert [sum(kinds[name] == "Resize" for name in names) for names in candidates] == [0, 2, 3, 6]
    assert all(less <= more for less, more in pairwise(candidates))


def test_the_limits() -> None:
    assert loses_too_much(COST.model_copy(update={"dice": (0.9, 0.896)})) is None
    assert loses_too_much(COST.model_copy(update={"dice": (None, None)})) is None
    assert "0.60 Dice points" in str(loses_too_much(COST.model_copy(update={"dice": (0.9, 0.894)})))
    assert "2.0 % of the labels" in str(loses_too_much(COST.model_copy(update={"label_agreement": 0.98})))


def test_exporting_a_run_in_another_precision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cli = Cli(monkeypatch, capsys)
    table = draw_dataset(tmp_path / "data", seed=2, train_per_class=3, test_per_class=1, size=(96, 128))
    run, out = tmp_path / "run", tmp_path / "sub" / "small.onnx"
    train_run(table, run, settings(UNTRAINED, method="masks-only", rounds=1))
    command = ("export", run, "--out", out, "--precision", "int8", "--force")
    full = tmp_path / "full.onnx"
    code, _, err = cli("export", run, "--out", full)
    assert (code, "carries 2 pieces of training images" in err) == (0, True)
    assert len(load(full, device="cpu").engine.references) == 2
    code, _, err = cli("export", run, "--out", full, "--no-references")
    assert (code, "carries no reference images" in err) == (0, True)
    assert not load(full, device="cpu").engine.references

    code, said, _ = cli(*command)
    assert code == 0
    assert "mask IoU with fp32: " in said
    assert load(out, device="cpu").spec.precision == "int8"

    monkeypatch.setattr("alserve.runtime.device.cpu_features", lambda: ["avx2"])  # as on a CPU without VNNI
    assert "int8 brings little on this CPU" in cli(*command)[2]
    monkeypatch.setattr("alserve.runtime.device.cpu_features", lambda: ["avx2", "vnni"])
    assert "int8 brings little" not in cli(*command)[2]

    monkeypatch.setattr("training.export.quantize.MIN_AGREEMENT", 1.5)  # what no model reaches
    before = out.read_bytes()
    code, said, err = cli(*command[:-1])
    assert (code, out.read_bytes()) == (2, before)
    assert "--force writes it all the same" in err
    assert sorted(path.name for path in out.parent.iterdir()) == ["small.onnx"]

    moved = table.parent.rename(tmp_path / "moved")
    assert_refused(cli(*command), "data.csv")
    assert cli(*command, "--data", moved / "data.csv")[0] == 0
    (moved / "data.csv").write_text((moved / "data.csv").read_text().replace(",test\n", ",valid\n"))
    assert_refused(cli(*command, "--data", moved / "data.csv"), "has changed", "--data")
