"""What a user names a place by."""

import subprocess
import sys
from pathlib import Path

import pytest

from alserve.errors import DataError
from alserve.places.disk import Disk
from alserve.places.store import Store
from alserve.places.urls import location, open_file, open_place, path_of

pytest.importorskip("obstore", reason="needs alserve[cloud]")


@pytest.mark.parametrize(
    ("text", "place", "path"),
    [
        ("a/b", Disk(Path("a/b")), "a/b"),
        ("C:/b", Disk(Path("C:/b")), "C:/b"),
        ("file:///a/b%20c", Disk(Path("/a/b c")), "/a/b c"),
        ("FILE://localhost/a", Disk(Path("/a")), "/a"),
        ("s3://bucket", Store("s3://bucket"), "s3://bucket"),
        ("S3://bucket/", Store("s3://bucket"), "s3://bucket"),
        ("s3://bucket/a b/ü?#%41/", Store("s3://bucket", "a b/ü?#%41"), "s3://bucket/a b/ü?#%41"),
        ("gs://my.bucket/a", Store("gs://my.bucket", "a"), "gs://my.bucket/a"),
        ("s3a://bucket/a", Store("s3://bucket", "a"), "s3://bucket/a"),
        ("gcs://bucket/a", Store("gs://bucket", "a"), "gs://bucket/a"),
        ("abfs://container/a", Store("az://container", "a"), "az://container/a"),
        (
            "abfs://c@a.dfs.core.windows.net/d",
            Store("abfss://c@a.dfs.core.windows.net", "d"),
            "abfss://c@a.dfs.core.windows.net/d",
        ),
        ("abfss://c@a.dfs.core.windows.net/d", Store("abfss://c@a.dfs.core.windows.net", "d"), None),
    ],
)
def test_paths_and_urls_are_places(text: str, place: object, path: str | None) -> None:
    opened = open_place(text)
    assert opened == place
    assert opened.path() == (path or text)
    assert (path_of(text) is None) == isinstance(place, Store)


def test_a_file_is_a_name_in_a_place() -> None:
    assert open_file("s3://bucket/a/b.onnx") == (Store("s3://bucket", "a"), "b.onnx")
    assert open_file("s3://bucket/b.onnx") == (Store("s3://bucket"), "b.onnx")
    assert open_file(Path("a/b.onnx")) == (Disk(Path("a")), "b.onnx")
    assert location(*open_file("s3://bucket/a/b.onnx")) == "s3://bucket/a/b.onnx"
    assert location(*open_file("a/b.onnx")) == Path("a/b.onnx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://host/a", "'ftp://' is no place that is known; give s3://, gs://, az://, abfss://, file:// or a path"),
        ("https://bucket.s3.amazonaws.com/a", "'https://' is no place that is known"),
        ("file://server/share", "names another machine"),
        ("s3://", "name a bucket"),
        ("s3:///a", "name a bucket"),
        ("s3://a b/c", "name a bucket"),
        ("s3://bucket/a/../b", "has a part that is empty, '.' or '..'"),
        ("s3://bucket/a//b", "has a part that is empty"),
        ("s3://bucket/a\nb", "or a control character"),
        ("s3://user:hunter2@bucket/a", "credentials in it"),
        ("s3://hunter2@bucket/a", "credentials in it"),
        ("abfss://user:hunter2@host/a", "credentials in it"),
        ("s3://bucket/a.png?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2", "a signed s3:// URL"),
        ("az://container/a?sv=2024&sig=hunter2", "a signed az:// URL"),
        ("https://host/a?token=hunter2", "a signed https:// URL"),
    ],
)
def test_what_is_no_place_is_one_line_without_secrets(text: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        open_place(text)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['obstore'] = None; from alserve.cli import main; "
        "sys.argv[1:] = ['segment', 's3://bucket/in', '--out', 'out']; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "alserve: s3:// needs obstore; run: pip install 'alserve[cloud]'\n",
    )
