"""The folder of a run: what it refuses, and that what is saved comes back."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import settings

from alserve.errors import DataError, RunError
from training.run.folder import Run
from training.run.records import read_config, read_rounds, read_seconds
from training.run.state import State
from training.settings import Settings, parse_assignments


def start(folder: Path, *, fingerprint: str = "f", overwrite: bool = False, **changes: object) -> Run:
    return Run(folder, settings(**changes), source=Path("data.csv"), fingerprint=fingerprint, overwrite=overwrite)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that has begun, and is not at work."""
    with start(tmp_path / "run") as run:
        run.save_theta0({"a": torch.ones(2)})
        run.save_state(State(asked=[[1]], passes=1))
        run.note_time(1, "pass 1", 1.5)
    return tmp_path / "run"


def test_state_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    state = State(
        round=2,
        passes=1,
        asked=[[0, 3], [5]],
        threshold=0.37,
        records=[{"round": 1, "test_dice": 0.5, "asked": ["a/ä.png"]}],
        pseudo={7: rng.integers(0, 256, (3, 5), np.uint8), 2: rng.integers(0, 256, (4, 4), np.uint8)},
        weights={"decoder.weight": torch.randn(3, 4, 2, 2)},
    )
    with start(tmp_path / "run") as run:
        assert run.load_state() == State()
        run.save_state(state)
        found = run.load_state()
    assert (found.round, found.passes, found.asked, found.threshold) == (2, 1, [[0, 3], [5]], 0.37)
    assert found.records == state.records
    assert found.pseudo.keys() == state.pseudo.keys()
    for index, mask in state.pseudo.items():
        np.testing.assert_array_equal(found.pseudo[index], mask)
        assert found.pseudo[index].dtype == np.uint8
    assert torch.equal(found.weights["decoder.weight"], state.weights["decoder.weight"])
    assert [json.loads(line) for line in (run.folder / "rounds.jsonl").read_text().splitlines()] == state.records


def test_results_that_were_damaged_are_written_anew_and_a_torn_time_is_passed_over(tmp_path: Path) -> None:
    record = {"round": 1, "masks_used": 2, "pseudo_labels": 0, "threshold": 0.5, "asked": [os.fsdecode(b"a\xff.png")]}
    with start(tmp_path / "run") as run:
        run.save_state(State(records=[record]))
        (run.folder / "rounds.jsonl").write_text("{")
        with pytest.raises(RunError, match=r"rounds\.jsonl: line 1 is damaged; 'alserve train'"):
            read_rounds(run.folder)
        assert run.load_state().records == read_rounds(run.folder) == [record]
        run.note_time(1, "pass 1", 2.0)
        with (run.folder / "timings.jsonl").open("a") as file:
            file.write('[]\n{"round": 1}\n' + "[" * 100_000 + '\n{"round": 1, "sec')
        assert read_seconds(run.folder) == {1: 2.0}


@pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="file names are text there")
def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    with start(tmp_path / os.fsdecode(b"run\xff")) as run:
        run.save_theta0({"a": torch.zeros(2)})
        run.save_state(State(round=2, weights={"a": torch.ones(2)}))
        assert run.load_state().round == 2
        assert run.load_theta0() is not None
    assert read_config(run.folder)["fingerprint"] == "f"


def test_theta0_comes_back(tmp_path: Path) -> None:
    weights = {"a": torch.randn(2, 3), "count": torch.tensor(4)}
    with start(tmp_path / "run") as run:
        assert run.load_theta0() is None
        run.save_theta0(weights)
        found = run.load_theta0()
    assert found is not None
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_the_same_run_continues(folder: Path) -> None:
    with start(folder) as run:
        assert run.load_state().asked == [[1]]


def test_other_data_and_other_settings_are_refused(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"belongs to other data \(.*data.csv\).*--overwrite"):
        start(folder, fingerprint="g")
    with pytest.raises(RunError, match=r"other settings .rounds was 2, now 3, seed was 0, now 1"):
        start(folder, rounds=3, seed=1)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_overwrite_starts_anew_and_spares_other_files(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with start(folder, fingerprint="g", overwrite=True, rounds=3) as run:
        assert run.load_state() == State()
        assert run.load_theta0() is None
    assert read_config(folder)["fingerprint"] == "g"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "notes.txt"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, overwrite: bool) -> None:  # noqa: FBT001
    (tmp_path / "text").write_text("hello")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("hello")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"hidden_size": 3}')
    (tmp_path / "model" / "report.html").write_text("hello")
    for name, words in (
        ("text", "is not empty and holds no run"),
        ("full", "is not empty and holds no run"),
        ("model", "not a run's"),
        ("text/deeper", "cannot be made"),
    ):
        with pytest.raises(RunError, match=words):
            start(tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "model" / "report.html").is_file()
    assert not list(tmp_path.glob(".*.lock"))


def test_what_a_kill_leaves_before_the_configuration_does_not_hinder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json-abc.tmp").write_bytes(b"half")
    with start(tmp_path / "run") as run:
        assert run.load_state() == State()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with start(tmp_path / "run"):
        for overwrite in (True, False):
            with pytest.raises(RunError, match="another process is writing to it"):
                start(tmp_path / "run", overwrite=overwrite)
    with start(tmp_path / "run"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_settings_of_a_preset() -> None:
    assert Settings.of("glas", {"rounds": 3}).schedule == [4, 1, 1]
    assert Settings.of("cub", {}).schedule == [1] * 20
    assert Settings.of("cub", {}).any_orientation is False
    assert settings(method="full").schedule == settings(method="wsl").schedule == [0]
    assert (settings().passes_a_round, settings(method="random").passes_a_round) == (2, 1)
    assert (settings(short_side=512).crop_side, settings().crop_side, settings(crop=32).crop_side) == (224, 64, 32)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "magic"}, "--method .*label-propagation.*full"),
        ({"short_side": 100}, "--short-side .*multiple of 32"),
        ({"initial": 0}, "--initial "),
        ({"seed": -1}, "--seed "),
        ({"crop": 512}, "crop 512 is larger than .* 256"),
        ({"query": "oldest"}, "unknown strategy 'oldest'; there are random"),
        ({"query": "coreset"}, "did you mean core-set"),
        ({"speed": 3}, "unknown setting 'speed'; .*there are method, query"),
        ({"pseudo_target": "soft"}, "unknown setting 'pseudo_target'; did you mean pseudo_targets"),
        ({"pseudo_pixels": "some"}, "--pseudo-pixels .*'all', 'weighted' or 'certain'"),
        ({"k": "many"}, "--k .*number"),
    ],
)
def test_bad_settings(values: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        Settings.of(None, values)
    assert "\n" not in str(caught.value)


def test_settings_by_name() -> None:
    given = parse_assignments(["k=0.1", "pseudo-targets = soft", "pseudo_flips=true", "crop=32"])
    chosen = Settings.of(None, given)
    assert (chosen.k, chosen.pseudo_targets, chosen.pseudo_flips, chosen.crop) == (0.1, "soft", True, 32)
    with pytest.raises(DataError, match=r"--set k: write it as NAME=VALUE"):
        parse_assignments(["k"])


def test_an_unknown_preset() -> None:
    with pytest.raises(DataError, match="unknown preset 'cells'; use glas, cub"):
        Settings.of("cells", {})
