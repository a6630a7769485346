"""Folders of classes and of masks in an object store: the same data as the same folders on the disk."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from buckets import Bucket, FaultyWay, on_disk
from command import Cli, assert_refused
from drawn import UNTRAINED, settings
from pictures import encoded, picture

from alserve import Predictor
from alserve.errors import DataError
from alserve.measure.dataset import Dataset, load_dataset
from alserve.measure.evaluate import evaluate
from training.compare.experiment import _plan, read_experiment
from training.compare.jobs import RunJob
from training.data.local_copy import local_copy
from training.data.synthetic import draw_dataset
from training.train import train_run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALSERVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tissue/SPLIT/CLASS/IMAGE and masks/SPLIT/CLASS/IMAGE, hidden files and a text."""
    folder = tmp_path_factory.mktemp("drawn")
    table = draw_dataset(folder / "csv", seed=2, train_per_class=2, test_per_class=1, size=(64, 96))
    for sample in load_dataset(table).samples:
        assert isinstance(sample.image, Path)
        assert isinstance(sample.mask, Path)
        for source, top in ((sample.image, "tissue"), (sample.mask, "masks")):
            place = folder / top / sample.split / source.parent.name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)
    shutil.rmtree(folder / "csv")
    (folder / "tissue" / "train" / "regular" / "notes.txt").write_text("notes")
    (folder / "tissue" / ".cache").mkdir()
    (folder / "tissue" / ".cache" / "x.png").write_bytes(b"x")
    (folder / "tissue" / "read me.md").write_text("read")
    return folder


@pytest.fixture
def stored(drawn: Path, bucket: Bucket) -> str:
    """The URL of the same folder in a bucket, with the objects by which programs mark folders."""
    for name, data in on_disk(drawn).items():
        bucket[f"sets/{name}"] = data
    for name in ("sets/", "sets/tissue/", "sets/tissue/train/regular/", "sets/masks/"):
        bucket[name] = b""
    bucket["sets/tissue-2/a/1.png"] = b"of another folder"
    return f"{bucket.url}/sets"


def described(dataset: Dataset) -> list[tuple[str, int, str, bool]]:
    return [(sample.name, sample.label, sample.split, sample.mask is not None) for sample in dataset.samples]


def test_a_folder_is_the_same_data_in_a_store(stored: str, drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = load_dataset(drawn / "tissue", drawn / "masks")
    said = capsys.readouterr().err
    for data, masks in (
        (f"{stored}/tissue", f"{stored}/masks"),
        (f"{stored}/tissue/", str(drawn / "masks")),
        (str(drawn / "tissue"), f"{stored}/masks/"),
    ):
        remote = load_dataset(data, masks)
        assert described(remote) == described(local)
        assert remote.classes == local.classes
        assert remote.fingerprint() == local.fingerprint()
    assert "left out 1 .txt: the kinds that are read" in said
    assert capsys.readouterr().err == said.replace(str(drawn), stored)


def test_one_listing_tells_all(stored: str, faulty: FaultyWay, cache: Path) -> None:
    dataset = load_dataset(f"{stored}/tissue", f"{stored}/masks")
    assert (faulty.asked["GET"], faulty.asked["HEAD"]) == (2, 1)
    copied = local_copy(dataset)
    files = len(on_disk(cache / "data")) - 1  # and a lock
    assert files == 2 * len(dataset.samples) == 12
    assert (faulty.asked["GET"], faulty.asked["HEAD"]) == (2 + files, 1 + files)
    assert copied.fingerprint() == dataset.fingerprint()
    assert local_copy(load_dataset(f"{stored}/tissue", f"{stored}/masks")) == copied
    assert faulty.asked["GET"] == 4 + 2 * files, "two listings more, and what the fingerprint in the store has read"


def test_what_has_left_the_store_is_no_data_any_more(stored: str, bucket: Bucket) -> None:
    before = local_copy(load_dataset(f"{stored}/tissue"))
    del bucket["sets/tissue/train/regular/train-000.jpg"]
    after = local_copy(load_dataset(f"{stored}/tissue"))
    names = [sample.name for sample in before.samples if sample.name != "train/regular/train-000.jpg"]
    assert [sample.name for sample in after.samples] == names
    assert len(names) == len(before.samples) - 1


def test_a_model_is_measured_on_a_folder(
    stored: str, drawn: Path, predictor: Predictor, cli: Cli, tmp_path: Path, cache: Path
) -> None:
    here = evaluate(predictor.engine.path, drawn / "tissue", masks=drawn / "masks")
    words = (f"{stored}/tissue", "--masks", f"{stored}/masks", "--json", tmp_path / "figures.json")
    code, _, err = cli("evaluate", predictor.engine.path, *words)
    assert code == 0, err
    assert (tmp_path / "figures.json").read_text() == here.model_dump_json(indent=2)
    assert not (cache / "data").exists()


def test_a_run_is_the_same_from_a_store(stored: str, drawn: Path, tmp_path: Path) -> None:
    few = settings(UNTRAINED, rounds=1)
    local = train_run(drawn / "tissue", tmp_path / "local", few, masks=drawn / "masks")
    remote = train_run(f"{stored}/tissue", tmp_path / "remote", few, masks=f"{stored}/masks")
    config = json.loads((remote.folder / "config.json").read_text())
    assert (config["source"], config["masks"]) == (f"{stored}/tissue", f"{stored}/masks")
    for name in ("model.onnx", "rounds.jsonl"):
        assert (remote.folder / name).read_bytes() == (local.folder / name).read_bytes()
    assert "<img" in remote.report.read_text()


def test_the_runs_of_an_experiment_get_the_urls(stored: str, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "experiment.yaml"
    few = {"initial": 1, "rounds": 1, "short_side": 64}
    content = {"data": f"{stored}/tissue", "masks": f"{stored}/masks", "settings": few, "methods": {"plain": None}}
    path.write_text(json.dumps(content))
    (job,), fingerprint = _plan(path, read_experiment(path), tmp_path / "out", None, None, "cpu")
    assert (job.data, job.masks) == (content["data"], content["masks"])
    assert RunJob.from_json(job.as_json()) == job
    assert fingerprint == load_dataset(f"{stored}/tissue", f"{stored}/masks").fingerprint()
    assert (cache / "data").is_dir(), "runs that are started at the same time find the copy"


def put(key: str, data: bytes = b"") -> Callable[[Bucket], None]:
    return lambda bucket: bucket.__setitem__(key, data or encoded(picture(20, 30, 1)))


def only(*kept: str) -> Callable[[Bucket], None]:
    def remove(bucket: Bucket) -> None:
        for key in list(bucket):
            if not key.startswith(kept):
                del bucket[key]

    return remove


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("sets/tissue/train/loose.png"), "tissue/train/loose.png: this image has no label"),
        (put("sets/tissue/train/none/notes.txt"), "train/none: this class folder holds no images; add some, or remove"),
        (put("sets/tissue/val/regular/1.png"), "tissue/val: unknown split 'val'; use train, valid, test"),
        (put("sets/tissue/train/Regular/1.png"), "classes 'Regular' and 'regular' differ by case"),
        (put("sets/masks/train/regular/9.png"), "masks/train/regular/9.png: this mask has no image of the same name"),
        (put("sets/masks/train/regular/train-000.jpg"), "train-000.jpg lies beside it, a second mask of the same name"),
        (put("sets/tissue/train/a//b.png"), "tissue/train/a//b.png: has a name with an empty part"),
        (put("sets/tissue/train/../b.png"), "tissue/train/../b.png: has a name with an empty part, '.' or '..'"),
        (put("sets/tissue/train/a\x01.png"), "tissue/train/a\\x01.png: has a name with"),
        (only("sets/tissue-2"), "/sets/tissue: no such object or folder"),
        (only("sets/tissue/"), "/sets/masks: no such object or folder"),
        (only("sets/tissue/read", "sets/masks"), "/sets/tissue: no images found; expected a subfolder per class"),
    ],
)
def test_a_folder_that_cannot_be_used(
    stored: str, bucket: Bucket, change: Callable[[Bucket], None], words: str
) -> None:
    change(bucket)
    with pytest.raises(DataError) as caught:
        load_dataset(f"{stored}/tissue", f"{stored}/masks")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_no_file_name_is_not_copied(stored: str, bucket: Bucket) -> None:
    bucket["sets/tissue/train/regular/con.png"] = encoded(picture(64, 96, 1))
    with pytest.raises(DataError, match=r"'sets/tissue/train/regular/con\.png' is no file name on Windows"):
        local_copy(load_dataset(f"{stored}/tissue"))


def test_a_folder_that_may_not_be_listed_is_one_line(
    stored: str, faulty: FaultyWay, cli: Cli, predictor: Predictor, bucket: Bucket
) -> None:
    assert bucket
    faulty.refuse = {"GET"}
    refused = cli("evaluate", predictor.engine.path, f"{stored}/tissue")
    assert_refused(refused, f"{stored}/tissue: cannot be listed: permission denied by the store")
