"""Another package of our name in the folder where a command is run: one line says which, and what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from alserve.files import write_atomic


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["training/__init__.py", "training.py"])
def test_a_package_of_the_users_in_place_of_ours_is_named(tmp_path: Path, name: str) -> None:
    write_atomic(tmp_path / name, b"print('the user\\'s')")
    done = run(tmp_path, "-m", "alserve", "train", "images", "--out", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"alserve: {tmp_path / name} is found in place of alserve's own package 'training'")
    assert "rename it, or run from another folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = run(tmp_path, "-c", "import alserve; alserve.train('images', out='run')")
    assert done.stderr.splitlines()[-1].startswith(f"alserve.errors.AlserveError: {tmp_path / name} is found in place")


def test_help_of_training_still_works_there(tmp_path: Path) -> None:
    write_atomic(tmp_path / "training" / "__init__.py", b"")
    done = run(tmp_path, "-m", "alserve", "train", "--help")
    assert done.returncode == 0, done.stderr
    assert "--per-round" in done.stdout


def test_a_folder_of_data_with_our_name_is_in_nobodys_way(tmp_path: Path) -> None:
    for name in ("training", "alserve"):
        (tmp_path / name).mkdir()
    done = run(tmp_path, "-m", "alserve", "train", "images", "--out", "run")
    assert done.returncode == 2
    assert done.stderr == "alserve: images: no such folder or CSV file\n"
