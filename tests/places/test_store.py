"""A folder in an object store does what one on the disk does; keys of strangers, faults, and locks."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from buckets import Bucket, FaultyWay
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alserve.errors import RunError
from alserve.places import lock, store
from alserve.places.client import open_bucket
from alserve.places.disk import Disk
from alserve.places.listing import HIDING, UNNAMEABLE
from alserve.places.place import FileTooLargeError, Place
from alserve.places.store import Store

names = st.lists(st.text("aB. é腺#?%&+", min_size=1, max_size=4), min_size=1, max_size=3).map("/".join)
named = names.filter(lambda name: not {".", ".."} & set(name.split("/")))


@given(files=st.dictionaries(named, st.binary(max_size=40), max_size=4), gone=named)
@settings(deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))
def test_a_store_answers_as_a_disk_does(
    bucket: Bucket, tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], gone: str
) -> None:
    files = {name: data for name, data in files.items() if not any(other.startswith(f"{name}/") for other in files)}
    top = tmp_path_factory.mktemp("place")
    places: list[Place] = [Disk(top), Store(bucket.url, top.name)]
    for place in places:
        for name, data in files.items():
            if len(data) % 2:
                place.write(name, data)
            else:
                place.write_parts(name, [data[:7], data[7:]])
    for name, data in {gone: b"", **files}.items():
        looks = [found and found.bytes for found in (place.look(name) for place in places)]
        assert looks[0] == looks[1] == (len(data) if name in files else None)
        if name in files:
            assert [place.read(name, len(data)) for place in places] == [data, data]
            assert [list(place.lines(name)) for place in places] == [
                data.splitlines(keepends=True)
            ] * 2 or b"\r" in data
            with pytest.raises(FileTooLargeError):
                places[1].read(name, len(data) - 1)
    assert places[1].names("a") == sorted(name for name in files if "/" not in name and name.startswith("a"))
    for place in places if gone in files else ():
        place.remove(gone)
        place.remove(gone)
        assert place.look(gone) is None
    assert sorted(item.name for item in Store(bucket.url, top.name).list()) == sorted(files.keys() - {gone})


def test_what_is_read_in_blocks_has_the_same_lines(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_BLOCK", 7)
    bucket["a.jsonl"] = b"one\n\ntwo and three\nfour"
    assert list(Store(bucket.url).lines("a.jsonl")) == [b"one\n", b"\n", b"two and three\n", b"four"]


def test_an_error_half_way_leaves_no_object(bucket: Bucket) -> None:
    def parts() -> "list[bytes]":
        yield b"x" * (9 << 20)  # more than is sent at once
        raise RunError("the disk is full")

    with pytest.raises(RunError, match="the disk is full"):
        Store(bucket.url).write_parts("a", parts())
    assert not list(bucket)


def test_sizes_and_beginnings_are_those_of_the_folder_alone(bucket: Bucket) -> None:
    for key in (
        "out/masks/a.png",
        "out/masks/b/c.png",
        "out/masks2/a.png",
        "out/predictions.jsonl",
        "other/masks/d.png",
    ):
        bucket[key] = key.encode()
    place = Store(bucket.url, "out")
    size_of = place.sizes(["masks"])
    assert [size_of(f"masks/{name}.png") for name in ("a", "b/c", "d")] == [15, 17, None]
    assert size_of("masks2/a.png") is None
    assert list(place.starting("masks")) == ["masks/a.png", "masks/b/c.png", "masks2/a.png"]
    assert place.names("p") == ["predictions.jsonl"]


@pytest.mark.parametrize("page", [1, 1000])
def test_keys_that_cannot_be_named_hide_no_others(bucket: Bucket, faulty: FaultyWay, page: int) -> None:
    faulty.page = page
    good = ["a.png", "a+b c&ü.png", "c.png", "zz.png", *(f"m{number:02}.png" for number in range(12))]
    bad = ["c//d.png", "e/../f.png", "x\x01y.png", "m05//x.png", "m07//x.png"]
    for name in (*good, *bad, "folder/"):
        bucket[f"in/{name}"] = b"1"
    listed = list(Store(bucket.url, "in").list())
    assert sorted({item.name for item in listed if not item.fault} - {"folder"}) == sorted(good)
    assert len(listed) == len({item.name for item in listed})
    assert {item.name: item.fault for item in listed if item.fault} == dict.fromkeys(bad, UNNAMEABLE)


def test_where_pages_cannot_be_read_the_listing_goes_on_behind_such_a_key(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("c//d.png", "c//e.png", "e/../f.png", "x\x01y.png", "zz.png"):
        bucket[f"in/{name}"] = b"1"
    place = Store(bucket.url, "in")
    open_bucket.cache_clear()
    list(place.list())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # read anew for pages, but not for the open bucket
    faults = {item.name: item.fault for item in place.list()}
    assert faults == {"c//d.png": HIDING, "e/../f.png": HIDING, "x\x01y.png": HIDING, "zz.png": ""}


def test_where_a_listing_cannot_go_on_behind_such_a_key_it_ends(bucket: Bucket, faulty: FaultyWay) -> None:
    faulty.page, faulty.forgetful = 3, True
    for name in ("a.png", "c//d.png", "zz.png", *(f"e/{number}.png" for number in range(9))):
        bucket[f"in/{name}"] = b"1"
    listed = Store(bucket.url, "in").list()
    with pytest.raises(OSError, match=r"this store does not list what follows 'in/c//d.png'; rename it"):
        list(listed)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda way: way.refuse.update({"GET"}), "permission denied by the store (AccessDenied)"),
        (lambda way: setattr(way, "gone_after", 0), "the store cannot be reached"),
        (
            lambda way: setattr(way, "throttle", 100),
            "the store answers 503 Service Unavailable (SlowDown), after 3 retries",
        ),
    ],
)
def test_a_store_that_fails_is_one_line(bucket: Bucket, faulty: FaultyWay, break_it: object, words: str) -> None:
    break_it(faulty)
    with pytest.raises(RunError) as caught:
        Store(bucket.url, "in").check()
    assert str(caught.value).startswith(f"{bucket.url}/in: {words}")
    assert len(str(caught.value).splitlines()) == 1
    assert "127.0.0.1" not in str(caught.value)


def test_without_credentials_it_is_one_line_and_no_long_wait(server: str) -> None:
    environment = {name: value for name, value in os.environ.items() if "AWS_" not in name}
    environment |= {"AWS_ENDPOINT_URL": server, "AWS_ALLOW_HTTP": "true", "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "alserve", "segment", "s3://bucket/in", "--out", "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "no credentials were found: set AWS_ACCESS_KEY_ID" in done.stderr


def test_requests_are_repeated_where_a_store_is_busy(bucket: Bucket, faulty: FaultyWay) -> None:
    faulty.throttle = 2
    place = Store(bucket.url, "out")
    place.write("a.txt", b"whole")
    assert place.read("a.txt", 9) == b"whole"
    assert faulty.asked["PUT"] == faulty.asked["GET"] == 3


def body(bucket: Bucket) -> dict[str, object]:
    return json.loads(bucket["out/.a.jsonl.lock"])


def test_one_process_at_a_time_has_a_lock(bucket: Bucket) -> None:
    place = Store(bucket.url, "out")
    with place.locked("a.jsonl"):
        began = time.monotonic()
        with pytest.raises(
            RunError, match=rf"another process is writing to it \(process {os.getpid()} on .*or for \d+ s"
        ):
            place.locked("a.jsonl").__enter__()
        assert time.monotonic() - began < lock.LOOK, "who is on this machine has not ended, and is not waited for"
        with place.locked("b.jsonl"):
            assert set(bucket) == {"out/.a.jsonl.lock", "out/.b.jsonl.lock"}
    assert not list(bucket)


def test_a_lock_whose_process_has_ended_is_taken_over(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Store(bucket.url, "out")
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    with place.locked("a.jsonl") as held:
        owner = body(bucket)
    assert held
    bucket["out/.a.jsonl.lock"] = json.dumps({**owner, "process": ended.pid}).encode()
    with place.locked("a.jsonl"):
        assert body(bucket)["process"] == os.getpid()
    monkeypatch.setattr(lock, "EXPIRY", -1)
    bucket["out/.a.jsonl.lock"] = json.dumps({**owner, "process": ended.pid, "machine": "another"}).encode()
    with place.locked("a.jsonl"):
        assert body(bucket)["process"] == os.getpid()
    bucket["out/.a.jsonl.lock"] = b"[no owner"
    with place.locked("a.jsonl"):
        pass
    assert not list(bucket)


ELSEWHERE = """
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from alserve.places import lock
from alserve.places.store import Store
lock._machine = lambda: "another machine"
lock.BEAT = 0.2
with Store(sys.argv[1], "out").locked("a.jsonl"):
    print("locked", flush=True)
    sys.stdin.read()
"""
"""A process that holds a lock, as if on another machine, until its standard input is closed."""


@contextmanager
def elsewhere(bucket: Bucket) -> Iterator[subprocess.Popen[str]]:
    """That process, when it holds the lock; it is killed in the end if it still runs."""
    words = [sys.executable, "-c", ELSEWHERE, bucket.url]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is not renewed lasts 2 s: the server tells whole seconds."""
    monkeypatch.setattr(lock, "EXPIRY", 2.0)
    monkeypatch.setattr(lock, "LOOK", 1.5)


@pytest.mark.usefixtures("soon")
def test_the_lock_of_who_was_killed_elsewhere_is_waited_for(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    place = Store(bucket.url, "out")
    with elsewhere(bucket) as process:
        process.kill()
        process.wait()
        with place.locked("a.jsonl"):
            assert body(bucket)["process"] == os.getpid()
    (line,) = capsys.readouterr().err.splitlines()
    who = f"a.jsonl: another process is writing to it (process {process.pid} on "
    assert who in line
    assert line.endswith(" s ago), or was killed; waiting for that, 4 s at most")
    assert not list(bucket)


@pytest.mark.usefixtures("soon")
def test_who_still_writes_elsewhere_is_not_waited_for_longer(bucket: Bucket) -> None:
    with elsewhere(bucket) as process:
        began = time.monotonic()
        with pytest.raises(RunError, match=rf"another process is writing to it \(process {process.pid} on "):
            Store(bucket.url, "out").locked("a.jsonl").__enter__()
        assert 2 <= time.monotonic() - began < 15
        assert set(bucket) == {"out/.a.jsonl.lock"}, "nothing else is left there"


def test_who_ends_elsewhere_is_followed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOOK", 0.2)
    with elsewhere(bucket) as process:
        assert process.stdin
        threading.Timer(1, process.stdin.close).start()
        began = time.monotonic()
        with Store(bucket.url, "out").locked("a.jsonl"):
            assert time.monotonic() - began < lock.EXPIRY / 2


def test_who_was_away_for_too_long_has_lost_the_lock(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.02)
    place = Store(bucket.url, "out")
    with place.locked("a.jsonl") as held:
        first = body(bucket)
        while body(bucket)["beats"] == first["beats"]:
            pass
        held.check()
        bucket["out/.a.jsonl.lock"] = b'{"process": 1, "host": "another"}'
        assert held._lost.wait(20)
        with pytest.raises(RunError, match="another process has begun to write to it"):
            held.check()
    assert set(bucket) == {"out/.a.jsonl.lock"}, "the lock is another's"


def test_places_are_the_same_in_another_process(bucket: Bucket) -> None:
    import pickle  # noqa: PLC0415

    place = Store(bucket.url, "in")
    kept = pickle.dumps(place)
    assert pickle.loads(kept) == place  # noqa: S301
    assert b"hunter2" not in kept
    assert pickle.loads(pickle.dumps(Disk(Path("a")))) == Disk(Path("a"))  # noqa: S301
