"""A person as the oracle, played by a script: what is asked, drawn, mistaken, skipped; and a run killed in between."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Cli, assert_refused
from drawn import UNTRAINED, settings
from forked import kill_when
from pictures import encoded, picture
from tables import draw_without_masks

from alserve.errors import DataError, RunError
from alserve.files import write_atomic
from alserve.images.codec import decode_mask
from alserve.measure.dataset import Dataset, Sample, load_dataset
from alserve.measure.folders import stem
from training.annotate.oracle import FolderOracle, NoMask, nearest_name
from training.learning.data import read_images
from training.learning.learner import Learner
from training.learning.pool import Pool
from training.model.trainer import Trainer
from training.run.folder import Run
from training.run.records import read_rounds
from training.run.state import weights_of
from training.train import train_run

TWO_ROUNDS = settings(UNTRAINED, initial=2)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_without_masks(tmp_path_factory.mktemp("data"))


def wanted(folder: Path) -> list[str]:
    """What the page asks for: the masks' paths, without suffix."""
    return re.findall(r"<code>masks/(.+?)\.png</code>", (folder / "todo.html").read_text())


def truth(table: Path, name: str) -> Path:
    return table.parent / (name.replace("images/", "masks/", 1) + ".png")


def draw(table: Path, folder: Path, names: Sequence[str]) -> None:
    for name in names:
        write_atomic(folder / "masks" / f"{name}.png", truth(table, name).read_bytes())


def draw_nothing(table: Path, folder: Path, name: str) -> None:
    shape = decode_mask(truth(table, name).read_bytes()).shape
    write_atomic(folder / "masks" / f"{name}.png", encoded(np.zeros(shape, np.uint8)))


def skip(folder: Path, name: str) -> None:
    write_atomic(folder / "masks" / f"{name}.skip", b"")


@pytest.fixture(scope="module")
def walked(table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole run, with every mistake on the way; what was seen at each stop."""
    place = tmp_path_factory.mktemp("walk")
    run, folder = place / "run", place / "drawing"
    seen: dict[str, Any] = {"run": run, "folder": folder}

    def go() -> None:
        train_run(table, run, TWO_ROUNDS, oracle=f"folder:{folder}")

    go()
    first = seen["first"] = wanted(folder)
    assert not (folder / "drafts").exists()

    small, empty, skipped, good = first
    write_atomic(folder / "masks" / f"{small}.png", encoded(np.ones((50, 60), np.uint8)))
    draw_nothing(table, folder, empty)
    with pytest.raises(DataError) as wrong:
        go()
    seen["mistakes"] = str(wrong.value)
    draw(table, folder, [small, good])
    write_atomic(folder / "masks" / f"{empty}.empty", b"")
    skip(folder, skipped)
    go()
    seen["instead"] = wanted(folder)
    assert not (run / "rounds.jsonl").read_text()
    draw(table, folder, seen["instead"])
    go()
    seen["second"] = wanted(folder)
    seen["drafts"] = {name: (folder / "drafts" / f"{name}.png").read_bytes() for name in seen["second"]}
    draw(table, folder, seen["second"])
    go()
    return seen


def test_what_a_person_is_asked_for_and_what_is_made_of_it(table: Path, walked: dict[str, Any]) -> None:
    first, instead, second = walked["first"], walked["instead"], walked["second"]
    labels = [name.split("/")[1] for name in first]
    assert sorted(labels.count(label) for label in set(labels)) == [2, 2]
    assert len(instead) == 1
    assert instead[0].split("/")[1] == first[2].split("/")[1]  # of the class of the one skipped
    assert not {*instead, *second} & set(first)
    assert len({name.split("/")[1] for name in second}) == len(second) == 2

    one, two = read_rounds(walked["run"])
    names = {name.removesuffix(".jpg") for name in one["asked"]}
    assert names == {first[0], first[1], first[3], *instead}
    assert {name.removesuffix(".jpg") for name in two["asked"]} == set(second)
    assert (one["masks_used"], two["masks_used"]) == (4, 6)
    assert one.get("test_dice") is None  # there are no test masks
    assert 0 <= one["test_accuracy"] <= 1
    assert (walked["run"] / "report.html").is_file()
    assert not (walked["folder"] / "todo.html").exists()  # nothing is left to draw

    copies = {path.relative_to(walked["folder"] / "images").as_posix() for path in walked["folder"].rglob("*.jpg")}
    assert copies == {f"{name}.jpg" for name in (*first, *instead, *second)}
    for name in copies:
        assert (walked["folder"] / "images" / name).read_bytes() == (table.parent / name).read_bytes()


def test_mistakes_are_said_with_the_way_out(walked: dict[str, Any]) -> None:
    small, empty, _skipped, _good = walked["first"]
    assert f"{small}.png: the mask has 60 x 50 pixels, its image" in walked["mistakes"]
    assert "they must be equal; " in walked["mistakes"]  # all at once
    assert f"{empty}.png: has no foreground" in walked["mistakes"]
    assert f"an empty file {Path(empty).name}.empty beside it" in walked["mistakes"]


def test_drafts_are_the_present_models_masks_at_the_images_own_size(table: Path, walked: dict[str, Any]) -> None:
    assert len(walked["drafts"]) == 2
    for name, draft in walked["drafts"].items():
        assert decode_mask(draft).shape == decode_mask(truth(table, name).read_bytes()).shape


def test_a_run_that_is_killed_ends_as_if_nothing_had_happened(
    table: Path, walked: dict[str, Any], tmp_path: Path
) -> None:
    run, folder = tmp_path / "run", tmp_path / "drawing"
    latest = run / "state" / "latest.safetensors"

    def go() -> None:
        train_run(table, run, TWO_ROUNDS, oracle=f"folder:{folder}")

    def kill(there: Callable[[], bool]) -> None:
        kill_when(there, table, run, TWO_ROUNDS, oracle=f"folder:{folder}")

    kill(lambda: any((folder / "images").rglob("*.jpg")))
    go()
    assert wanted(folder) == walked["first"]
    small, empty, skipped, good = walked["first"]
    draw(table, folder, [small, good])
    draw_nothing(table, folder, empty)
    write_atomic(folder / "masks" / f"{empty}.empty", b"")
    skip(folder, skipped)
    go()
    assert wanted(folder) == walked["instead"]
    draw(table, folder, walked["instead"])
    kill(lambda: latest.stat().st_size > 1_000_000)  # the network after a pass
    kill(lambda: any((folder / "drafts").rglob("*.png")))
    go()
    assert wanted(folder) == walked["second"]
    draw(table, folder, walked["second"])
    go()
    for name in ("rounds.jsonl", "model.onnx", "state/latest.safetensors"):
        assert (run / name).read_bytes() == (walked["run"] / name).read_bytes(), name


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        write_atomic(tmp_path / "data" / name, encoded(picture(40, 60, sum(name.encode())), "JPEG"))
    return tmp_path / "data"


def hole(height: int, width: int) -> np.ndarray:
    """A mask of everything but an object of 10 x 10 pixels."""
    mask = np.full((height, width), 255, np.uint8)
    mask[10:20, 10:20] = 0
    return mask


def asked(data: Path) -> tuple[Sample, ...]:
    return load_dataset(data).samples[:1]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a/1.png": encoded(picture(60, 40))}, ["the mask has 40 x 60 pixels", "has 60 x 40"]),
        ({"a/1.png": b"hello"}, ["a/1.png: not an image"]),
        ({"a/1.png": encoded(picture(40, 60), "JPEG")}, ["a/1.png: a JPEG blurs the outline", "PNG"]),
        ({"a/1.png": encoded(np.ones((40, 60), np.uint8))}, ["has no background", "an empty file 1.full"]),
        ({"a/1.png": encoded(picture(40, 60) | np.uint8(1))}, ["100.0 % of it are not black", "photograph", "1.full"]),
        (
            {"a/1.png": encoded(hole(40, 60))},
            ["a/1.png: 96 % of it and nearly all of its border", "invert it", "1.full"],
        ),
        ({"a/1.png": encoded(np.eye(40, 60, dtype=np.uint8)), "a/1.skip": b""}, ["marked as skipped", "remove"]),
        ({"a/1.png": b"", "a/1.tif": b""}, ["a second mask of the same name"]),
    ],
)
def test_a_mask_that_cannot_be_used(data: Path, tmp_path: Path, files: dict[str, bytes], words: list[str]) -> None:
    for name, content in files.items():
        write_atomic(tmp_path / "work" / "masks" / name, content)
    with pytest.raises(DataError) as error:
        FolderOracle(tmp_path / "work").ask(asked(data))
    assert all(word in str(error.value) for word in words), error.value


def test_answers(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    oracle, masks = FolderOracle(tmp_path), tmp_path / "masks"
    samples = load_dataset(data).samples
    assert oracle.ask(samples) == [NoMask.YET] * 4
    write_atomic(masks / "a" / "1.tif", encoded(np.eye(40, 60, dtype=np.uint8), "TIFF"))
    write_atomic(masks / "a" / "2.skip.txt", b"")
    write_atomic(masks / "b" / "1.png", encoded(np.ones((40, 60), np.uint8)))
    write_atomic(masks / "b" / "1.full", b"")
    write_atomic(masks / "b" / "3.png", encoded(np.ones((4, 6), np.uint8)))
    first, second, third, fourth = FolderOracle(tmp_path).ask(samples)
    np.testing.assert_array_equal(first, np.eye(40, 60, dtype=bool))
    assert (second, fourth) == (NoMask.EVER, NoMask.YET)
    assert np.asarray(third).all()
    assert [oracle.can_answer(sample) for sample in samples] == [True, False, True, True]
    said = capsys.readouterr().err
    assert f"{masks / 'b' / '3.png'}: not asked for by now, left alone" in said
    assert (masks / "b" / "3.png").is_file()


@pytest.mark.parametrize(
    "name", ["a/1_mask.png", "a/1.PNG.png", "a/mask_1.png", "A/1-Mask.tif", "a/1.jpg.png", "1.png", "elsewhere/1.png"]
)
def test_a_mask_under_a_near_name_is_told_the_name_that_was_expected(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    masks = tmp_path / "masks"
    write_atomic(masks / name, encoded(np.eye(40, 60, dtype=np.uint8)))
    samples = load_dataset(data).samples[:2]
    assert FolderOracle(tmp_path).ask(samples) == [NoMask.YET] * 2
    said = capsys.readouterr().err
    assert said == f"alserve: found {masks / name}; expected {masks / 'a' / '1.png'}: rename it\n"


def test_which_name_is_near() -> None:
    assert nearest_name("1_mask", ["a/1", "b/1"]) is None
    assert nearest_name("b/1_mask", ["a/1", "b/1"]) == "b/1"
    assert nearest_name("b/12", ["a/1", "b/1"]) is None


def test_what_a_person_did_in_the_folder_is_never_replaced(data: Path, tmp_path: Path, predictor: Any) -> None:
    """Someone paints in the draft or in the copy, in place."""
    oracle, samples = FolderOracle(tmp_path), load_dataset(data).samples[:2]
    write_atomic(tmp_path / "drafts" / "a" / "1.png", b"painted")
    write_atomic(tmp_path / "images" / "a" / "1.jpg", b"painted")
    with pytest.raises(DataError, match=r"drafts.*1\.png"):
        oracle.request(samples, predictor.engine.path)
    assert (tmp_path / "drafts" / "a" / "1.png").read_bytes() == b"painted"
    write_atomic(tmp_path / "drafts" / "a" / "1.png", encoded(np.ones((7, 7), np.uint8)))
    oracle.request(samples, predictor.engine.path)
    assert (tmp_path / "images" / "a" / "1.jpg").read_bytes() == b"painted"
    assert (tmp_path / "images" / "a" / "2.jpg").read_bytes() == samples[1].image.read_bytes()
    assert wanted(tmp_path) == ["a/1", "a/2"]


def test_the_page_needs_nothing_from_elsewhere(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a b&c"
    FolderOracle(folder).request(load_dataset(data).samples, None)
    page = (folder / "todo.html").read_text()
    assert "4 masks to draw" in page
    assert page.count("60 x 40 pixels") == 4
    assert not re.findall(r'(?:src|href)="https?:', page)
    for link in re.findall(r'href="(.+?)"', page):
        assert (folder / link).is_file(), link
    assert (folder / "masks" / "b").is_dir()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in ("4 masks to draw", "todo.html", "masks", "run the same command again"))


@pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="file names are text there")
def test_names_that_are_no_text_are_asked_for(tmp_path: Path) -> None:
    name = os.fsdecode(b"a/\xff.jpg")
    write_atomic(tmp_path / "data" / name, encoded(picture(40, 60), "JPEG"))
    FolderOracle(tmp_path / "work").request(load_dataset(tmp_path / "data").samples, None)
    assert (tmp_path / "work" / "images" / name).is_file()
    assert 'href="images/a/%FF.jpg"' in (tmp_path / "work" / "todo.html").read_text()


@pytest.mark.parametrize("place", ["images", "masks"])
def test_links_out_of_the_folder_are_not_followed(data: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "work" / place).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work" / place / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(DataError, match="a symbolic link leads out of"):
        FolderOracle(tmp_path / "work").request(asked(data), None)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "all-masks"}, ["--method all-masks", "--masks"]),
        ({"method": "cams-only"}, ["--method cams-only", "leave --oracle out"]),
        ({"validation_masks": True}, ["--validation-masks", "one half"]),
        ({"initial": 3, "rounds": 1}, ["class a has 2 training images, but the budget is 3", "--initial"]),
    ],
)
def test_settings_that_a_person_has_no_part_in(
    data: Path, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(DataError) as error:
        FolderOracle(tmp_path / "work").check(load_dataset(data), settings(UNTRAINED, **changes))
    assert all(word in str(error.value) for word in words), error.value


def test_places_and_names_that_clash(data: Path, tmp_path: Path) -> None:
    small = settings(UNTRAINED, rounds=1)
    FolderOracle(tmp_path / "work").check(load_dataset(data), small)
    with pytest.raises(DataError, match="lies in the data set"):
        FolderOracle(data / "work").check(load_dataset(data), small)
    dataset = load_dataset(data)
    first = dataset.samples[0]
    for name, words in (("../1.jpg", "lies outside"), (str(first.image), "lies outside"), ("a/2.png", "would share")):
        other = Sample(name, first.image, 0, None, "train")
        with pytest.raises(DataError, match=words):
            FolderOracle(tmp_path).check(Dataset(data, dataset.classes, (*dataset.samples, other)), small)


def test_the_command_refuses_an_oracle_that_it_does_not_know(cli: Cli, data: Path, tmp_path: Path) -> None:
    for name in ("person", "folder:", "Folder:x", "data:x"):
        result = cli("train", data, "--out", tmp_path / "run", "--oracle", name)
        assert_refused(result, f"unknown --oracle '{name}'", "there are data, browser, folder:DIR")
    result = cli("train", data, "--out", tmp_path / "run", "--oracle", "date")
    assert_refused(result, "did you mean data?")
    assert_refused(cli("train", data, "--out", tmp_path / "run"), "class a has 0", "--oracle browser")
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_kind_of_oracle(table: Path, walked: dict[str, Any]) -> None:
    drawn = table.with_name("bare.csv")
    with pytest.raises(RunError, match=r"come from --oracle folder:.*give that"):
        train_run(drawn, walked["run"], TWO_ROUNDS.model_copy(update={"method": "cams-only"}))


def test_classes_that_are_skipped_altogether(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The round goes on without them; when nothing at all is drawn, that is said."""
    dataset, tiny, masks = load_dataset(data), settings(UNTRAINED, rounds=1), tmp_path / "work" / "masks"
    trainer = Trainer(tiny, "cpu")
    with Run(tmp_path / "run", tiny, source=data, oracle="folder:work", fingerprint="x").begin() as run:
        run.save_theta0(weights_of(trainer.new_network(2, seed=0)))

        def gather() -> tuple[bool, Pool]:
            learner = Learner(
                dataset, read_images(dataset, trainer.settings.short_side), FolderOracle(masks.parent), trainer, run
            )
            state = learner.begin(run.load_state())
            return learner.gather_masks(state), state.pool

        for sample in dataset.samples:
            write_atomic(masks / f"{stem(sample.name)}.skip", b"")
        with pytest.raises(DataError, match="every image was skipped"):
            gather()
        (masks / "b" / "2.skip").unlink()
        assert not gather()[0]
        assert wanted(masks.parent) == ["b/2"]
        write_atomic(masks / "b" / "2.png", encoded(np.eye(40, 60, dtype=np.uint8)))
        done, pool = gather()
        assert done
        assert pool.labelled == {3}
        assert "class a: no image is left to ask for; round 1 has 0 of 1 new masks" in capsys.readouterr().err
        assert run.load_state().asked == [[3]]
