"""Folder runs from and into an object store: the same results as on the disk, whatever happens on the way."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket, FaultyWay, on_disk
from command import Cli, assert_refused
from folders import HEIC, write_picture

from alserve import Predictor, segment
from alserve.errors import DataError, RunError
from alserve.folder import parts
from alserve.folder.manifest import MANIFEST
from alserve.folder.planned import LEFT_OUT
from alserve.folder.result import SegmentResult
from alserve.folder.shards import merge
from alserve.places.listing import UNNAMEABLE

SAVE = ("mask", "polygons", "label-studio")


def rows(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
def run(predictor: Predictor) -> Any:
    """A folder run with the model that comes with the package."""

    def run(source: object, out: object, **options: Any) -> SegmentResult:
        return segment(str(source), out=str(out), model=predictor, **{"save": SAVE, **options})

    return run


def test_a_run_into_a_store_leaves_the_same_bytes(run: Any, bucket: Bucket, pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "out")
    result = run(pictures, f"{bucket.url}/out")
    assert (result.manifest, result.images) == (f"{bucket.url}/out/{MANIFEST}", 5)
    assert str(result).endswith(f"in {bucket.url}/out")
    assert bucket.below("out") == on_disk(tmp_path / "out")
    assert result.rows() == rows(bucket[f"out/{MANIFEST}"])
    again = run(pictures, f"{bucket.url}/out")
    assert (again.images, again.skipped) == (0, 5)
    assert bucket.below("out") == on_disk(tmp_path / "out")


def test_a_run_from_a_store_leaves_the_same_but_for_paths_and_times(
    cli: Cli, run: Any, bucket: Bucket, pictures: Path, tmp_path: Path, predictor: Predictor
) -> None:
    run(pictures, tmp_path / "out")
    bucket["models/tissue.onnx"] = predictor.engine.path.read_bytes()
    words = ("segment", f"{bucket.url}/in", "--out", f"{bucket.url}/out", "--save", ",".join(SAVE))
    code, _, err = cli(*words, "--model", f"{bucket.url}/models/tissue.onnx")
    assert (code, "tissue.onnx on cpu" in err) == (0, True), err
    run(f"{bucket.url}/in/", tmp_path / "third")
    here, there, third = on_disk(tmp_path / "out"), bucket.below("out"), on_disk(tmp_path / "third")
    assert here.keys() == there.keys() == third.keys()
    for name in here:
        if name.startswith(("masks/", "polygons/")):
            assert here[name] == there[name] == third[name]
    found = [rows(files[MANIFEST]) for files in (here, there, third)]
    for row in (row for each in found for row in each):
        row["path"] = row["path"].replace(f"{bucket.url}/in", str(pictures))
        assert isinstance(row.pop("mtime_ns"), int)
        assert row["output_bytes"].pop("label-studio")  # the task names the image
    assert found[0] == found[1] == found[2]


def test_what_has_changed_is_done_again_and_what_was_only_written_again_is_not(run: Any, bucket: Bucket) -> None:
    for index in range(3):
        bucket[f"in/{index}.png"] = picture_bytes(index)
    run(f"{bucket.url}/in", f"{bucket.url}/out")
    time.sleep(1.1)  # the server tells whole seconds
    bucket["in/0.png"] = picture_bytes(9)
    bucket["in/1.png"] = picture_bytes(1)
    bucket["out/masks/2.png"] = b"cut"
    bucket["in/3.png"] = picture_bytes(3)
    result = run(f"{bucket.url}/in", f"{bucket.url}/out")
    assert (result.images, result.skipped) == (3, 1)
    del bucket["out/polygons/1.geojson"]
    assert run(f"{bucket.url}/in", f"{bucket.url}/out").images == 1
    assert [row["name"] for row in rows(bucket[f"out/{MANIFEST}"])] == [f"{index}.png" for index in range(4)]
    with pytest.raises(RunError, match=r"holds results of another model or of other options.*--overwrite"):
        run(f"{bucket.url}/in", f"{bucket.url}/out", threshold=0.3)
    assert run(f"{bucket.url}/in", f"{bucket.url}/out", threshold=0.3, overwrite=True).images == 4
    assert not [key for key in bucket if ".parts/" in key or ".lock" in key]


def picture_bytes(seed: int) -> bytes:
    from pictures import encoded, picture  # noqa: PLC0415

    return encoded(picture(40, 56, seed))


def test_shards_merge_to_the_manifest_of_one_run(run: Any, bucket: Bucket, pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "out")
    out = f"{bucket.url}/out"
    run(pictures, out, shard="1/2")
    with pytest.raises(DataError, match="shard 2/2 is missing"):
        merge([out])
    run(pictures, out, shard="2/2")
    assert merge([out]) == (f"{out}/{MANIFEST}", 5, 0)
    kept = {name: data for name, data in bucket.below("out").items() if "-of-" not in name}
    assert kept == on_disk(tmp_path / "out")


def test_what_would_clash_or_be_written_over_is_refused(run: Any, bucket: Bucket, tmp_path: Path) -> None:
    for key in ("in/a.png", "in/a.jpg", "in/b.png", "in/masks/c.png"):
        bucket[key] = picture_bytes(1)
    place = f"{bucket.url}/in"
    with pytest.raises(DataError) as caught:
        run(place, f"{bucket.url}/out")
    assert str(caught.value) == f"{place}/a.jpg and {place}/a.png would both be written to a.png; use --keep-extension"
    assert run(place, f"{bucket.url}/out", keep_extension=True).images == 4
    del bucket["in/a.jpg"]
    bucket["other/polygons/b.geojson"] = b"mine"
    with pytest.raises(RunError, match=r"other/polygons/b\.geojson: exists already; use --overwrite"):
        run(place, f"{bucket.url}/other")
    with pytest.raises(RunError, match=r"in/masks/c\.png: is an input and would be written over"):
        run(f"{place}/masks", place, save="mask")
    result = run(place, place, save="mask")
    assert result.images == 2, "the folders of results are no inputs"
    assert run(f"{place}/b.png", tmp_path / "single", save="mask").images == 1


def test_left_out_and_odd_keys_are_listed(run: Any, bucket: Bucket, tmp_path: Path) -> None:
    for key in ("a.png", "no-suffix", "b//c.png", "d/../e.png", "f\x01.png", "back\\slash.png", "Drüse 腺 #1?%.png"):
        bucket[f"in/{key}"] = picture_bytes(1)
    for key in (".hidden.png", "notes.txt", "empty", "folder/", "word"):
        bucket[f"in/{key}"] = b"" if key in {"empty", "folder/"} else b"text"
    bucket["in/x.heic"], bucket["in/heic"] = HEIC, HEIC
    bucket[f"in/{'long' * 252}.png"] = picture_bytes(1)
    result = run(f"{bucket.url}/in", f"{bucket.url}/out", save="polygons")
    odd = {"b//c.png": UNNAMEABLE, "d/../e.png": UNNAMEABLE, "f\x01.png": UNNAMEABLE}
    reasons = {row["path"].removeprefix(f"{bucket.url}/in/"): row["reason"] for row in rows(bucket[f"out/{LEFT_OUT}"])}
    assert reasons == {**odd, "x.heic": "HEIC", "heic": "HEIC"}
    assert (result.images, result.failed, result.exit_code) == (5, 1, 1)
    failed = next(row for row in rows(bucket[f"out/{MANIFEST}"]) if row["status"] == "error")
    assert "the name is too long" in failed["error"]
    write_picture(tmp_path / "line" / "line\nbreak.png")
    (failed,) = run(tmp_path / "line", f"{bucket.url}/line").rows()
    assert failed["error"].endswith("cannot be written: " + UNNAMEABLE.replace("name with", "a name that has"))
    to_disk = run(f"{bucket.url}/in", tmp_path / "out", save="mask")
    assert (to_disk.images, to_disk.left_out) == (4, 6)  # no file with a backslash


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("s3://no-such-bucket/in", "--out", "out"), "s3://no-such-bucket/in: there is no such bucket"),
        (("{}/none", "--out", "out"), "/none: no such object or folder"),
        (("{}/in", "--out", "s3://no-such-bucket/out"), "s3://no-such-bucket/out: there is no such bucket"),
        (("hdfs://host/in", "--out", "out"), "'hdfs://' is no place that is known; give s3://, gs://, az://"),
        (("{}/in", "--out", "out", "--model", "{}/in/none.onnx"), "the model cannot be read: no such object"),
    ],
)
def test_what_is_not_there_is_one_line(
    cli: Cli, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bucket["in/a.png"] = picture_bytes(1)
    assert_refused(cli("segment", *(word.format(bucket.url) for word in words)), said)


def test_a_killed_run_continues_and_ends_as_an_undisturbed_one(
    run: Any, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predictor: Predictor
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 2)
    monkeypatch.setenv("ALSERVE_MODEL", str(predictor.engine.path.absolute()))
    for index in range(30):
        write_picture(tmp_path / "in" / f"{index:02}.png", 200, 300, index)
    run(tmp_path / "in", tmp_path / "whole", save="mask,cam")
    folder = tmp_path / "in"
    program = (
        "import sys; from alserve.folder import parts; parts.PART_ROWS = 2; from alserve.cli import main; "
        f"sys.argv[1:] = ['segment', '{folder}', '--out', '{bucket.url}/out', '--save', 'mask,cam']; main()"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and sum(".parts/" in key for key in bucket) < 3:
            time.sleep(0.02)
        process.kill()
    assert process.returncode == -9
    assert f"out/{MANIFEST}" not in bucket
    assert f"out/.{MANIFEST}.lock" in bucket
    result = run(tmp_path / "in", f"{bucket.url}/out", save="mask,cam")  # the lock of who was killed is no obstacle
    assert result.skipped >= 4
    assert result.images + result.skipped == 30
    assert bucket.below("out") == on_disk(tmp_path / "whole")


def test_a_store_that_goes_away_ends_the_run_with_one_line(
    cli: Cli, bucket: Bucket, faulty: FaultyWay, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta  # noqa: PLC0415

    from alserve.places import client  # noqa: PLC0415

    monkeypatch.setattr(client, "PATIENT", {**client.PATIENT, "retry_timeout": timedelta(seconds=1)})
    words = ("segment", pictures, "--out", f"{bucket.url}/out", "--save", "mask", "--threads", "1")
    faulty.gone_after = 12
    code, _, err = cli(*words)
    assert (code, "Traceback" in err) == (2, False), err
    assert "cannot be written: the store cannot be reached, after" in err.splitlines()[-1]
    assert "127.0.0.1" not in err
    assert "hunter2" not in err
    faulty.gone_after = None
    code, _, err = cli(*words)
    assert code == 0, err
    assert len(rows(bucket[f"out/{MANIFEST}"])) == 5


def test_a_place_that_cannot_be_written_to_is_one_line(
    cli: Cli, bucket: Bucket, faulty: FaultyWay, pictures: Path
) -> None:
    faulty.refuse = {"PUT", "POST", "DELETE"}
    code, out, err = cli("segment", pictures, "--out", f"{bucket.url}/out", "--save", "mask")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith("cannot be locked: permission denied by the store (AccessDenied)")


@pytest.mark.usefixtures("pictures")
def test_a_busy_store_slows_a_run_and_no_more(cli: Cli, bucket: Bucket, faulty: FaultyWay) -> None:
    faulty.throttle = 1
    code, _, err = cli("segment", f"{bucket.url}/in", "--out", f"{bucket.url}/out", "--save", "mask")
    assert code == 0, err
    assert len(rows(bucket[f"out/{MANIFEST}"])) == 5
