"""The demo from end to end, with fewer steps: data, run, folder, a real service, report."""

import json
from pathlib import Path

import pytest

from alserve.folder.manifest import MANIFEST
from training import demo
from training.run.records import read_rounds

TINY = {"initial": 1, "rounds": 1, "passes": 1, "short_side": 64, "crop": 64, "classifier_steps": 2, "steps": 2}


def test_demo_leaves_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "SETTINGS", {**demo.SETTINGS, **TINY})
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    demo.run_demo(tmp_path / "demo", seed=0)
    out = tmp_path / "demo"
    rounds = read_rounds(out / "run")
    assert [record["masks_used"] for record in rounds] == [2]
    answer = json.loads((out / "answer.json").read_text())
    rows = [json.loads(line) for line in (out / "segmented" / MANIFEST).read_text().splitlines()]
    asked = next(row for row in rows if row["path"].endswith("irregular/test-000.jpg"))
    assert answer["label"] == asked["label"]
    assert answer["foreground"] == pytest.approx(asked["foreground"], abs=1e-3)
    page = (out / "report.html").read_text()
    assert f"{100 * rounds[0]['test_dice']:.1f}" in page
    assert str(out / "report.html") in capsys.readouterr().out
