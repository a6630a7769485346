"""An experiment's YAML file: what is refused, and the ones that come with the source."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Cli, assert_refused
from experiments import write_config

from alserve.errors import DataError
from training.compare.experiment import read_experiment, settings_of


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sedes": [1]}, ["unknown key 'sedes'", "did you mean seeds?"]),
        ({"preset": "glass"}, ["unknown preset 'glass'", "did you mean glas?"]),
        ({"settings": {"step": 3}}, ["method plain: unknown key 'step'", "did you mean steps?"]),
        (
            {"methods": {"a": {"method": "mask-only"}}},
            ["method a: unknown method 'mask-only'", "did you mean masks-only?"],
        ),
        ({"methods": {"a": {"query": "entorpy"}}}, ["method a: unknown strategy 'entorpy'", "did you mean entropy?"]),
        ({"methods": {"a": {"seed": 3}}}, ["'seed' in a", "under 'seeds'"]),
        ({"methods": {"a": {"steps": 0}}}, ["method a: steps: "]),
        ({"methods": {"a": "random"}}, ["methods.a: ", "dictionary"]),
        ({"methods": {"../a": {}}}, ["methods.../a: ", "pattern"]),
        ({"methods": {}}, ["methods: "]),
        ({"methods": {"a" * 101: {}}}, ["methods."]),
        ({"methods": {"a\nb": {}}}, ["methods.a\\nb: "]),
        ({"methods": {"plain": {}, "Plain": {}}}, ["'Plain' and 'plain' differ by case"]),
        ({"methods": [1]}, ["methods: ", "dictionary"]),
        ({"methods": {"a": {"lr": float("inf")}}}, ["method a: lr: ", "finite"]),
        ({"methods": {"a": {"rounds": 10**9}}}, ["method a: rounds: ", "less than"]),
        ({"methods": {"a": {"short_side": 32}}}, ["method a: short_side: ", "64"]),
        ({"methods": {"a": {"method": ["x\ny"]}}}, ["method a: "]),
        ({"settings": {1: 2}}, ["settings"]),
        ({"masks": {}}, ["masks: "]),
        ({"seeds": [0, 0]}, ["seed is there twice"]),
        ({"seeds": ["one"]}, ["seeds.0: "]),
        ({"data": None}, ["names no data set", "--data"]),
        ({"data": "nowhere.csv"}, ["nowhere.csv"]),
        ({"settings": {"initial": 9}}, ["class irregular has 4", "the budget"]),
    ],
)
def test_a_file_with_wrong_keys_or_values_is_refused(
    folder: Path, tmp_path: Path, cli: Cli, changes: dict[str, Any], words: list[str]
) -> None:
    (tmp_path / "data").symlink_to(folder / "data")
    path = write_config(tmp_path, **{"data": "data/data.csv", "methods": {"plain": {}}, "seeds": [0], **changes})
    assert_refused(cli("experiment", path, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_a_file_of_encoder_weights_is_relative_to_the_experiments(folder: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "data").symlink_to(folder / "data")
    methods = {"plain": {}, "dino": {"encoder_weights": "b.pth"}}
    shared = {"initial": 1, "rounds": 1, "encoder_weights": "a.pth"}
    path = write_config(tmp_path, data="data/data.csv", methods=methods, settings=shared)
    experiment = read_experiment(path)
    found = [settings_of(experiment, method, 0).encoder_weights for method in methods]
    assert found == [tmp_path / "a.pth", tmp_path / "b.pth"]
    assert_refused(cli("experiment", path, "--out", tmp_path / "out"), "b.pth: there is no such file")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds: [0\nmethods: {}", "line 2"),
        ("methods: {a: {}, a: {}}", "'a' is there twice"),
        ("", "valid dictionary"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "line 2: aliases"),
        ("a: &a [*a]", "aliases"),
        ("[" * 100_000, "other than text"),
        ("{[1, 2]: 3}", "found unhashable key"),
        ("{{a: 1}: 3}", "found unhashable key"),
        ("seeds: 2001-99-99", "other than text"),
        ("seeds: !!int x", "other than text"),
        ("seeds: !!bool x", "other than text"),
        ("seeds: !!map 3", "other than text"),
        ("a: \0", "not YAML"),
        ("a: " + "x" * 300_000, "larger than 256 KiB"),
        ("a: b\n" * 10_000, "'a' is there twice"),
        ("{? : 1, methods: {}}", "methods: "),
    ],
)
def test_a_file_that_is_not_an_experiment_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_experiment(tmp_path / "e.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), Path.exists])
def test_what_is_not_a_file_is_refused(tmp_path: Path, cli: Cli, make: Callable[[Path], object]) -> None:
    make(tmp_path / "e.yaml")
    assert_refused(cli("experiment", tmp_path / "e.yaml", "--out", tmp_path / "out"), "e.yaml: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "ours"), [("glas", [("consistency", "random")]), ("cub", [])])
def test_the_published_comparisons(name: str, ours: list[tuple[str, str]]) -> None:
    experiment = read_experiment(Path(__file__).parents[2] / "benchmarks" / f"{name}.yaml")
    assert experiment.seeds == (0, 1, 2, 3, 4)
    chosen = [settings_of(experiment, method, seed=3) for method in experiment.methods]
    assert [(it.method, it.query) for it in chosen] == [
        ("cams-only", "random"),
        ("masks-only", "random"),
        ("masks-only", "entropy"),
        ("masks-only", "mc-dropout"),
        *ours,
        ("label-propagation", "random"),
        ("all-masks", "random"),
    ]
    assert {it.seed for it in chosen} == {3}
    assert {len(it.schedule) for it in chosen if it.schedule != [0]} == {25 if name == "glas" else 20}


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "benchmarks").glob("*.yaml")), ids=lambda path: path.stem
)
def test_our_own_experiments_can_be_read(path: Path) -> None:
    experiment = read_experiment(path)
    assert len({settings_of(experiment, method, seed=0) for method in experiment.methods}) == len(experiment.methods)
