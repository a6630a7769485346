"""The folder of a run: what it refuses, and that what is saved comes back."""

import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import settings
from safetensors.torch import save

from alserve.errors import RunError
from training.run.folder import Run
from training.run.records import read_config, read_rounds, read_seconds
from training.run.result import ORDER, RunResult, describe_method
from training.run.state import State


def start(
    folder: Path, *, fingerprint: str = "f", overwrite: bool = False, started: float | None = None, **changes: object
) -> Run:
    chosen, data = settings(**changes), Path("data.csv")
    run = Run(folder, chosen, source=data, fingerprint=fingerprint, overwrite=overwrite, started=started)
    return run.begin()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that has begun and was left."""
    with start(tmp_path / "run") as run:
        run.save_theta0({"a": torch.ones(2)})
        run.save_state(State(asked=[[1]], passes=1))
        run.note_time(1, "pass 1")
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


def test_pseudo_masks_are_in_a_file_that_the_state_names(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        first = run.save_pseudo(1, 1, [4, 2], (np.full((2, 3), value, np.uint8) for value in (4, 2)))
        run.save_state(State(passes=1, pseudo=first))
        second = run.save_pseudo(1, 2, [4], [np.zeros((2, 3), np.uint8)])
        found = run.load_state().pseudo  # as before: the state that would name the second file was not saved
        assert {image: int(mask[0, 0]) for image, mask in found.items()} == {4: 4, 2: 2}
        run.save_state(State(passes=2, pseudo=second))
        assert list(run.load_state().pseudo) == [4]
        assert [path.name for path in run.cache.glob("pseudo-*")] == ["pseudo-1-2.pixels"]
        for damage in (lambda path: path.write_bytes(path.read_bytes()[:-1]), Path.unlink):
            damage(second.masks.path)
            with pytest.raises(RunError, match=r"latest\.safetensors: is damaged; begin the run anew"):
                run.load_state()


def test_pseudo_masks_of_the_version_before(tmp_path: Path) -> None:
    fields = {"round": 1, "passes": 1, "asked": [[1]], "threshold": 0.5, "records": []}
    tensors = {"pseudo/7": torch.full((2, 3), 9, dtype=torch.uint8), "weights/a": torch.ones(2)}
    with start(tmp_path / "run") as run:
        run.latest.parent.mkdir()
        run.latest.write_bytes(save(tensors, metadata={"state": json.dumps(fields)}))
        state = run.load_state()
        assert {image: mask.tolist() for image, mask in state.pseudo.items()} == {7: [[9] * 3] * 2}
        run.save_state(state)
        assert run.load_state().pseudo[7].tolist() == [[9] * 3] * 2


def test_time_in_which_a_run_only_waited_does_not_count(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        run.note_time(1, "masks")
        time.sleep(0.5)
        run.leave_time_out()
        run.note_time(1, "masks")
    assert read_seconds(run.folder)[1] < 0.4


def test_results_that_were_damaged_are_written_anew_and_a_torn_time_is_passed_over(tmp_path: Path) -> None:
    record = {"round": 1, "masks_used": 2, "pseudo_labels": 0, "threshold": 0.5, "asked": [os.fsdecode(b"a\xff.png")]}
    with start(tmp_path / "run") as run:
        run.save_state(State(records=[record]))
        (run.folder / "rounds.jsonl").write_text("{")
        with pytest.raises(RunError, match=r"rounds\.jsonl: line 1 is damaged; 'alserve train'"):
            read_rounds(run.folder)
        assert run.load_state().records == read_rounds(run.folder) == [record]
        with (run.folder / "timings.jsonl").open("a") as file:
            file.write('{"round": 1, "what": "pass 1", "seconds": 2.0}\n')
            file.write('[]\n{"round": 1}\n' + "[" * 100_000 + '\n{"round": 1, "sec')
        assert read_seconds(run.folder) == {1: 2.0}


def test_the_times_of_a_run_are_all_the_time_that_it_was_at_work(tmp_path: Path) -> None:
    """Two stretches with a pause in between, the second one stopped by Ctrl-C in the midst of a pass."""
    began = time.monotonic()
    with start(tmp_path / "run") as run:
        time.sleep(0.2)
        run.note_time(0, "data")
        run.note_time(1, "masks")
        time.sleep(0.1)
        run.note_time(1, "pass 1")
    worked = time.monotonic() - began
    time.sleep(0.5)
    began = time.monotonic()
    with suppress(KeyboardInterrupt), start(tmp_path / "run", started=began - 1) as run:
        run.note_time(2, "masks")
        time.sleep(0.2)
        raise KeyboardInterrupt
    worked += 1 + time.monotonic() - began
    seconds = RunResult.read(tmp_path / "run").seconds
    assert seconds.keys() == {0, 1, 2}
    assert sum(seconds.values()) == pytest.approx(worked, abs=0.05)
    assert seconds[0] >= 0.2 > seconds[1] >= 0.1
    assert seconds[2] >= 1.2
    assert '"what": "stopped"' in (tmp_path / "run" / "timings.jsonl").read_text().splitlines()[-1]


def test_a_run_belongs_to_what_its_file_of_encoder_weights_held(tmp_path: Path) -> None:
    first, moved = tmp_path / "first", tmp_path / os.fsdecode(b"moved\xff")
    first.write_bytes(b"weights")
    with start(tmp_path / "run", encoder_weights=first):
        pass
    first.rename(moved)
    with start(tmp_path / "run", encoder_weights=moved):  # the same file elsewhere
        pass
    assert read_config(tmp_path / "run")["encoder_weights"] == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(RunError, match=r"began with other encoder weights \(SHA-256 \w{12}, now none\); give the file"):
        start(tmp_path / "run")
    moved.write_bytes(b"others")
    with pytest.raises(RunError, match=r"began with other encoder weights \(SHA-256 \w{12}, now \w{12}\)") as caught:
        start(tmp_path / "run", encoder_weights=moved)
    assert "\n" not in str(caught.value)
    with start(tmp_path / "run", encoder_weights=moved, overwrite=True):
        pass


OLD_NAMES = {"method": "random", "upside_down": False}
"""Of a method and a setting, as the version before wrote them."""


def test_a_run_of_the_version_before_continues_and_is_read(tmp_path: Path) -> None:
    given = {"method": "masks-only", "any_orientation": False}
    with start(tmp_path / "run", **given) as run:
        run.save_state(State(asked=[[1]], passes=1))
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    for name in (*given, "references"):  # the last one is newer than that version
        del config["settings"][name]
    config["settings"] |= OLD_NAMES
    path.write_text(json.dumps(config))
    found = RunResult.read(tmp_path / "run").settings
    assert {name: found[name] for name in given} == given
    assert not found.keys() & {"upside_down"}
    for refused in ({"method": "label-propagation"}, {**given, "any_orientation": True}):
        with pytest.raises(RunError, match="this run has other settings"):
            start(tmp_path / "run", **refused)
    with start(tmp_path / "run", **OLD_NAMES) as run:
        assert run.load_state().asked == [[1]]
    assert json.loads(path.read_text())["settings"]["method"] == "masks-only"


def test_both_names_of_a_method() -> None:
    assert [describe_method(name) for name in ORDER] == [
        "cams only (published as wsl)",
        "masks only (published as random)",
        "label propagation",
        "consistency",
        "all masks (published as full)",
    ]
    assert describe_method("wsl") == describe_method("cams-only")


def test_a_run_that_waits(tmp_path: Path) -> None:
    folder, masks = tmp_path / "run", tmp_path / "drawing"
    with Run(folder, settings(), source=Path("d"), oracle=f"folder:{masks}", fingerprint="f").begin():
        assert not RunResult.read(folder).waiting
        masks.mkdir()
        (masks / "todo.html").touch()
        result = RunResult.read(folder)
        assert (result.waiting, result.finished, list(result.rounds)) == (True, False, [])
        assert result.report == folder / "report.html"


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
