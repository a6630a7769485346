"""Data sets in an object store: measured from there, and copied to the disk for training."""

import io
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from buckets import Bucket, FaultyWay, on_disk
from command import Cli, assert_refused
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, picture

from alserve import Predictor
from alserve.errors import DataError, RunError
from alserve.measure.dataset import load_dataset
from alserve.measure.evaluate import evaluate
from alserve.measure.rows import _text, read_rows
from alserve.places import disk, store
from alserve.places.disk import Disk
from alserve.places.store import Store
from training.data import local_copy as local_copy_module
from training.data.local_copy import local_copy
from training.data.synthetic import draw_dataset

CSV = "image,label,mask\nscans/1.png,benign,\nscans/2.png,malignant,drawn/2.png\n"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CSV of a data set with masks."""
    folder = tmp_path_factory.mktemp("data")
    return draw_dataset(folder, seed=2, train_per_class=1, test_per_class=2, size=(64, 96))


@pytest.fixture
def stored(drawn: Path, bucket: Bucket) -> str:
    """The URL of the same in a bucket, with a CSV of another folder, written by another program."""
    for name, data in on_disk(drawn.parent).items():
        bucket[f"sets/{name}"] = data
    text = drawn.read_text().replace("images/", "../images/").replace("masks/", "./../masks//")
    bucket["sets/tables/data.csv"] = b"\xef\xbb\xbf" + text.replace("\n", "\r").encode()
    return f"{bucket.url}/sets/tables/data.csv"


@pytest.fixture
def table(bucket: Bucket) -> str:
    """The URL of a small data set."""
    for index, name in enumerate(("scans/1.png", "scans/2.png", "drawn/2.png")):
        bucket[f"set/{name}"] = encoded(picture(20, 30, index))
    bucket["set/data.csv"] = CSV.encode()
    return f"{bucket.url}/set/data.csv"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALSERVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_model_is_measured_in_a_store_as_on_the_disk(
    stored: str, drawn: Path, cli: Cli, predictor: Predictor, bucket: Bucket, tmp_path: Path, cache: Path
) -> None:
    here = evaluate(predictor.engine.path, drawn)
    bucket["models/tissue.onnx"] = predictor.engine.path.read_bytes()
    words = ("evaluate", f"{bucket.url}/models/tissue.onnx", stored)
    code, out, err = cli(*words, "--json", tmp_path / "figures.json", "--worst", tmp_path / "worst.png")
    assert (code, "tissue.onnx on 4 images" in out) == (0, True), err
    text = (tmp_path / "figures.json").read_text()
    assert text.replace("../images/", "images/") == here.model_dump_json(indent=2)
    assert (tmp_path / "worst.png").is_file()
    assert not (cache / "data").exists()


@pytest.mark.usefixtures("stored")
def test_masks_on_the_disk_may_be_of_images_in_a_store(drawn: Path, bucket: Bucket, tmp_path: Path) -> None:
    bucket["sets/images/bare.csv"] = b"image,label\nregular/test-000.jpg,regular\nirregular/test-000.jpg,irregular\n"
    masks = tmp_path / "masks"
    shutil.copytree(
        drawn.parent / "masks" / "regular", masks / "regular", ignore=lambda *_: {"train-000.png", "test-001.png"}
    )
    samples = load_dataset(f"{bucket.url}/sets/images/bare.csv", masks).samples
    assert [sample.mask for sample in samples] == [None, masks / "regular" / "test-000.png"]
    assert [mask is not None for _, mask in (sample.read() for sample in samples)] == [False, True]


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced("scans/2", "scans/9"), ["line 3: s3://", "set/scans/9.png: no such object"]),
        (replaced("drawn/2", "drawn/9"), ["line 3: s3://", "set/drawn/9.png: no such object"]),
        (replaced("scans/2", "scans"), ["line 3: s3://", "set/scans.png: no such object"]),
        (replaced("scans/2.png", "../../other/1.png"), ["line 3: '../../other/1.png' leads out of s3://bucket-"]),
        (replaced("drawn/2.png", "/etc/hosts"), ["line 3: '/etc/hosts' leads out of s3://bucket-"]),
        (replaced("drawn/2.png", "s3://other/1.png"), ["line 3: 's3://other/1.png' leads out of s3://bucket-"]),
        (replaced("scans/1.png", "file:///etc/hosts"), ["line 2: 'file:///etc/hosts' leads out of s3://bucket-"]),
        (replaced("scans/1.png", "a\x01b\\.png"), ["line 2: s3://", "control character"]),
        (replaced("scans/1.png", "a" * 5000), ["line 2: s3://"]),
        (replaced("scans/2.png", "../set/./scans//1.png"), ["line 3: image scans/1.png is listed twice, as "]),
        (replaced("drawn/2.png", "scans/1.png"), ["line 3: the mask of scans/2.png is image scans/1.png"]),
        (replaced("label", "class"), ["no column label"]),
        (replaced("malignant", "Benign"), ["'Benign' and 'benign'"]),
        (lambda _: "", ["no column image and no column label"]),
        (lambda text: text + '"' + "x" * 200_000, ["cannot be read as a CSV"]),
    ],
)
def test_a_csv_that_cannot_be_used(table: str, bucket: Bucket, change: Callable[[str], str], words: list[str]) -> None:
    bucket["set/data.csv"] = change(CSV).encode()
    with pytest.raises(DataError) as caught:
        load_dataset(table)
    message = str(caught.value)
    assert message.startswith(table)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert len(message) < 6000


def test_what_is_no_csv_is_one_line(table: str, bucket: Bucket, cli: Cli, tmp_path: Path, predictor: Predictor) -> None:
    model = predictor.engine.path
    missing, nowhere = f"{bucket.url}/none.csv", "s3://no-bucket-here/data.csv"
    for words in (("evaluate", model, missing), ("train", missing, "--out", tmp_path / "run")):
        assert_refused(cli(*words), f"{missing}: no such object or folder")
    assert_refused(cli("evaluate", model, nowhere), f"{nowhere}: cannot be listed: there is no such bucket")
    bucket["set/binary.csv"] = b"image,label\n\xff\xfe,b\n"
    assert_refused(cli("evaluate", model, f"{bucket.url}/set/binary.csv"), "cannot be read as a CSV file in UTF-8")
    assert_refused(cli("evaluate", model, table, "--masks", f"{bucket.url}/masks"), "/masks: no such object or folder")
    assert_refused(cli("report", "runs", "--out", "gs://b/c?sig=secret"), "--out: gs:// cannot be given here")
    assert_refused(cli("info", f"{bucket.url}/m.onnx"), "model: s3:// cannot be given here")
    refused = cli("train", table, "--out", tmp_path / "run", "--initial", 4)
    assert_refused(
        (refused[0], refused[1], refused[2].splitlines()[-1]), "class benign has 0 training images with a mask"
    )
    assert not (tmp_path / "run").exists()


def test_what_may_not_be_read_is_one_line_with_the_reason(table: str, faulty: FaultyWay) -> None:
    faulty.refuse = {"HEAD"}
    with pytest.raises(DataError, match=r"data\.csv: cannot be read: permission denied by the store"):
        load_dataset(table)
    faulty.refuse = {"GET"}
    with pytest.raises(DataError, match=r"data\.csv: cannot be read: permission denied by the store \(AccessDenied\)"):
        load_dataset(table)


def test_a_copy_is_the_same_data_and_is_made_once(
    stored: str, drawn: Path, bucket: Bucket, faulty: FaultyWay, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty.throttle = 1
    copied = local_copy(load_dataset(stored))
    assert on_disk(cache / "data" / bucket.url.replace("://", "/")) == {
        key: data for key, data in bucket.items() if not key.endswith(".csv")
    }
    assert f"{cache / 'data'}" in capsys.readouterr().err
    original = load_dataset(drawn)
    assert local_copy(original) is original
    for one, other in zip(copied.read_all(), original.read_all(), strict=True):
        assert all((first == second).all() for first, second in zip(one, other, strict=True))
    faulty.throttle, before = 0, faulty.asked["GET"]
    assert local_copy(load_dataset(stored)) == copied
    assert faulty.asked["GET"] - before == 1  # the CSV, which says what there is
    assert not capsys.readouterr().err
    time.sleep(1.1)  # the server tells whole seconds
    bucket["sets/images/regular/train-000.jpg"] = changed = encoded(picture(64, 96, 5))
    before = faulty.asked["GET"]
    again = local_copy(load_dataset(stored))
    assert faulty.asked["GET"] - before == 2
    assert Path(again.split("train")[1].image).read_bytes() == changed


def test_a_copy_that_was_stopped_goes_on(table: str, faulty: FaultyWay, cache: Path) -> None:
    dataset = load_dataset(table)
    before = faulty.asked.total()
    local_copy(dataset)
    requests = faulty.asked.total() - before
    shutil.rmtree(cache)
    faulty.gone_after = faulty.asked.total() + requests - 1
    with pytest.raises(RunError, match=r"s3://.*: the data cannot be copied: the store cannot be reached"):
        local_copy(dataset)
    (folder,) = (cache / "data" / "s3").iterdir()
    there = on_disk(folder)
    assert 0 < len(there) < 3
    faulty.gone_after, before = None, faulty.asked["GET"]
    local_copy(dataset)
    assert faulty.asked["GET"] - before == 3 - len(there)


def test_one_process_at_a_time_copies(table: str, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "data").mkdir(parents=True)
    dataset, held = load_dataset(table), threading.Event()

    def hold() -> None:
        with FileLock(cache / "data" / ".lock"):
            held.set()
            time.sleep(0.5)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    local_copy(dataset)
    holder.join()
    waited, copied = capsys.readouterr().err.splitlines()
    assert waited.endswith("another process copies data there; waiting for it")
    assert "keeps a copy of the data" in copied


def test_what_cannot_be_copied(
    table: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    dataset = load_dataset(table)
    huge = {url: version._replace(bytes=1 << 50) for url, version in dataset.stored.items()}
    with pytest.raises(DataError, match=r"set/scans/1\.png: has 1,125,899,906,842,624 bytes, more than an image may"):
        local_copy(replace(dataset, stored=huge))
    monkeypatch.setattr(local_copy_module, "MAX_FILE_BYTES", 1 << 60)
    with pytest.raises(
        RunError, match=r"data: the copy of the data takes 3377699\.\d GB there, and [\d.]+ GB are free"
    ):
        local_copy(replace(dataset, stored=huge))
    assert not (cache / "data" / "s3").exists()
    monkeypatch.undo()
    monkeypatch.setenv("ALSERVE_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file.*: the data cannot be copied: Not a directory"):
        local_copy(dataset)
    bucket["set/a\\b.png"] = bucket["set/scans/1.png"]
    bucket["set/data.csv"] = CSV.replace("scans/1.png", "a\\b.png").encode()
    with pytest.raises(DataError, match="has a backslash"):
        local_copy(load_dataset(table))


def test_two_objects_are_no_one_file(table: str, bucket: Bucket, cache: Path) -> None:
    folder = cache / "data" / bucket.url.replace("://", "/") / "set"
    (folder / "scans").mkdir(parents=True)
    (folder / "drawn").symlink_to(folder / "scans")  # so does a disk that takes A and a for the same
    with pytest.raises(DataError, match=r"set/drawn/2\.png: its copy would be that of s3://.*/set/scans/2\.png"):
        local_copy(load_dataset(table))


@given(st.lists(st.text(st.sampled_from('ab,"\n\r\u2028\x85\ufeff ä'), max_size=12), max_size=6).map("".join))
def test_lines_are_those_of_a_text_file(text: str) -> None:
    data = text.encode()
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    assert list(_text(io.BytesIO(data))) == list(lines)


def test_a_line_without_an_end_takes_no_more_memory_than_a_line_may(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"image,label\n" + b"x" * 5000
    bucket["data.csv"] = data
    (tmp_path / "data.csv").write_bytes(data)
    for module in (disk, store):
        monkeypatch.setattr(module, "MOST_LINE", 1000)
    monkeypatch.setattr(store, "_BLOCK", 100)
    for folder in (Disk(tmp_path), Store(bucket.url)):
        with pytest.raises(DataError, match=r"data\.csv: cannot be read: a line has more than"):
            list(read_rows(folder, "data.csv"))
