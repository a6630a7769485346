"""An output that is added from outside is written, named and described as those of the package."""

import json
from pathlib import Path

import pytest
from command import Cli
from folders import manifest, write_picture
from parts import add_part

from alserve import Predictor
from alserve.folder.segment import segment
from alserve.outputs import OUTPUTS, Case, Output


def _encode(case: Case) -> bytes:
    return json.dumps({"label": case.prediction.label, "pixels": int(case.mask.sum())}).encode()


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output("label and size of the mask: JSON", "toys", _encode, suffix=".json", media_type="application/json")
    add_part(monkeypatch, OUTPUTS, "toy", output)


@pytest.mark.usefixtures("_toy")
def test_an_output_from_outside_is_written(cli: Cli, tmp_path: Path, predictor: Predictor) -> None:
    for name in ("a.png", "sub/b.jpg"):
        write_picture(tmp_path / "in" / name)
    out = tmp_path / "out"
    code, _, _ = cli("segment", tmp_path / "in", "--out", out, "--save", "toy,mask", "--model", predictor.engine.path)
    assert code == 0
    for row in manifest(out):
        written = out / "toys" / row["name"].replace(".png", ".json")
        found = json.loads(written.read_bytes())
        assert found["label"] == row["label"]
        assert found["pixels"] == round(row["foreground"] * row["height"] * row["width"])
        assert row["output_bytes"]["toy"] == written.stat().st_size
        assert (out / "masks" / row["name"]).is_file()


@pytest.mark.usefixtures("_toy")
def test_it_is_continued_named_and_suggested(cli: Cli, tmp_path: Path, predictor: Predictor) -> None:
    source, out = write_picture(tmp_path / "a.png"), tmp_path / "out"
    assert segment(source, out=out, model=predictor, save="toy").images == 1
    assert segment(source, out=out, model=predictor, save="toy").skipped == 1
    (out / "toys" / "a.json").unlink()
    assert segment(source, out=out, model=predictor, save="toy").images == 1
    code, _, err = cli("segment", source, "--out", out, "--save", "toys")
    assert code == 2
    assert (
        "--save 'toys': unknown output 'toys'; did you mean toy? there are cam, coco, cutout, label-studio, mask, "
        "objects, overlay, polygons, probability, toy" in err
    )
