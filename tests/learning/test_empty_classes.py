"""Classes without foreground: what the data set must be, and whole runs with such a class."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn import UNTRAINED, settings
from forked import kill_when
from pictures import encoded, picture
from tables import rewrite

from alserve import load
from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.measure.dataset import load_dataset
from training.annotate.oracle import FolderOracle, SimulatedOracle
from training.data.synthetic import draw_dataset
from training.learning.data import TrainingData, read_images
from training.learning.empty_classes import check_empty_classes
from training.run.records import read_rounds
from training.train import check_budget, train_run

ROWS = ("part", "train"), ("part", "train"), ("part", "test"), ("free", "train"), ("free", "valid"), ("free", "test")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write a data set of two classes: a part with foreground, and one that is free of it but for some images."""

    def make(*full: int, bare: bool = False) -> Path:
        lines = [("image", "label", "split", "mask")]
        for number, (label, split) in enumerate(ROWS):
            write_atomic(tmp_path / f"{number}.png", encoded(picture(40, 60, number)))
            mask = np.eye(40, 60, dtype=np.uint8) * (label == "part" or number in full)
            write_atomic(tmp_path / f"mask-{number}.png", encoded(mask))
            lines.append((f"{number}.png", label, split, "" if bare and label == "free" else f"mask-{number}.png"))
        path = tmp_path / "data.csv"
        path.write_text("\n".join(map(",".join, lines)))
        return path

    return make


def test_classes_that_do_not_fit_the_data(make: Callable[..., Path]) -> None:
    dataset = load_dataset(make())
    check_empty_classes(dataset, ())
    check_empty_classes(dataset, ("free",))
    with pytest.raises(
        DataError, match=r"has no class 'fre' \(--empty-class\); did you mean free\? there are free, part"
    ):
        check_empty_classes(dataset, ("fre",))
    with pytest.raises(DataError, match=r"names all classes \(free, part\); at least one class must have foreground"):
        check_empty_classes(dataset, ("free", "part"))
    with pytest.raises(
        DataError, match=r"mask-0\.png: has foreground, .*--empty-class part .*\(2 such.*'train'\); correct"
    ):
        check_budget(dataset, settings(empty_classes=["part"], rounds=1), SimulatedOracle())


def test_truth_that_teaches_nothing_is_named_only(
    make: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    check_empty_classes(load_dataset(make(4, 5)), ("free",))
    valid, test = capsys.readouterr().err.splitlines()
    assert "mask-4.png: has foreground" in valid
    assert "(1 such masks in split 'valid'); the figures count them as they are" in valid
    assert "mask-5.png: has foreground" in test
    check_empty_classes(load_dataset(make()), ("free",))
    assert capsys.readouterr().err == ""


def test_no_mask_of_such_a_class_is_needed(make: Callable[..., Path], tmp_path: Path) -> None:
    dataset = load_dataset(make(bare=True))
    named, unnamed = (settings(initial=2, rounds=1, empty_classes=names) for names in ("free", ()))
    SimulatedOracle().check(dataset, named)
    FolderOracle(tmp_path / "drawing").check(dataset, named)
    with pytest.raises(DataError, match="class free has 0 training images with a mask, but the budget is 2"):
        SimulatedOracle().check(dataset, unnamed)
    with pytest.raises(DataError, match="class free has 1 training images, but the budget is 2"):
        FolderOracle(tmp_path / "drawing").check(dataset, unnamed)
    with pytest.raises(DataError, match="--validation-masks needs a mask for every image of split 'valid', and some"):
        SimulatedOracle().check(dataset, named.model_copy(update={"validation_masks": True}))


def test_its_images_are_examples_with_an_empty_mask(make: Callable[..., Path]) -> None:
    dataset, chosen = load_dataset(make(bare=True)), settings(empty_classes=["free"], validation_masks=True)
    data = TrainingData(dataset, read_images(dataset, chosen.short_side), chosen)
    assert (data.known_empty, data.foreground_classes) == ({2}, (1,))
    (example,) = data.with_masks({}, ())
    assert (example.label, example.weight) == (0, 1)
    assert example.mask is not None
    assert example.mask.shape == example.image.shape[:2]
    assert not example.mask.any()
    (mask,) = data.validation()[1]
    assert not mask.any()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set whose second class has no masks for training."""
    drawn = draw_dataset(tmp_path_factory.mktemp("data"), seed=1, train_per_class=6, test_per_class=1, size=(64, 96))
    return rewrite(drawn, "half.csv", lambda line: {**line, "mask": "" if line["label"] == "regular" else line["mask"]})


def test_a_run_asks_for_the_masks_of_the_other_classes_only_and_continues_after_a_kill(
    table: Path, tmp_path: Path
) -> None:
    chosen = settings(UNTRAINED, empty_classes=["regular"], k=5)
    made = train_run(table, tmp_path / "run", chosen)
    rounds = read_rounds(made.folder)
    assert [record["masks_used"] for record in rounds] == [1, 2]
    assert all("irregular" in name for record in rounds for name in record["asked"])
    assert [record["pseudo_labels"] for record in rounds] == [5, 4]
    assert all(record["empty_masks"].keys() == {"irregular"} for record in rounds)
    spec = load(made.model, device="cpu").spec
    assert (spec.empty_classes, spec.provenance.masks_used) == (("regular",), 2)

    killed = tmp_path / "killed"
    assert kill_when((killed / "model.onnx").exists, table, killed, chosen) == -signal.SIGKILL
    train_run(table, killed, chosen)
    for name in ("rounds.jsonl", "model.onnx", "state/latest.safetensors"):
        assert (killed / name).read_bytes() == (made.folder / name).read_bytes(), name


def test_all_masks_at_once_but_those_that_are_known(table: Path, tmp_path: Path) -> None:
    made = train_run(table, tmp_path / "run", settings(UNTRAINED, method="all-masks", empty_classes=["regular"]))
    (record,) = made.rounds
    assert (record["masks_used"], len(record["asked"])) == (6, 6)
