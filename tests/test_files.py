"""Files are whole or not there, whatever happens while they are written."""

import subprocess
import sys
from pathlib import Path

import pytest

from alserve.files import remove_unfinished, write_atomic

KILLED = """
import os, sys
from pathlib import Path
import alserve.files

Path.replace = lambda *_: os._exit(9)
alserve.files.write_atomic(Path(sys.argv[1]), b"data")
"""

LIMITED = """
import resource, sys
from pathlib import Path
from alserve.files import write_atomic

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), bytes(2000))
except OSError as error:
    print(error.filename)
"""


def test_write_atomic_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("umask", ["022", "077", "002"])
def test_files_keep_the_umask(tmp_path: Path, umask: str) -> None:
    write = "import sys; from pathlib import Path; from alserve.files import write_atomic; "
    write += "write_atomic(Path(sys.argv[1]), b'data')"
    command = f'umask {umask}; exec "$@"'
    subprocess.run(["sh", "-c", command, "sh", sys.executable, "-c", write, tmp_path / "file"], check=True)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~int(umask, 8)


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    names = ("a.png", "b.png", f"{'long' * 20}1.png", f"{'long' * 20}2.png", "é\udcff.png")
    for name in names:
        assert subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], check=False).returncode == 9
    (tmp_path / ".mine.tmp").write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == 6
    remove_unfinished([tmp_path / names[0], tmp_path / names[2], tmp_path / names[4], tmp_path / "none" / "c.png"])
    left = sorted(path.name for path in tmp_path.iterdir())
    assert [name[:6] for name in left] == [".b.png", ".longl", ".mine."]


def test_write_atomic_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken") as caught:
        write_atomic(tmp_path / "taken", b"data")
    assert caught.value.filename == str(tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size")
def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, tmp_path / "file"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"{tmp_path / 'file'}\n"
    assert list(tmp_path.iterdir()) == []
