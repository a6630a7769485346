"""The README's commands are run as a reader would run them, in a folder of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from alserve.files import write_atomic
from training.compare.experiment import read_experiment
from training.data.synthetic import draw_dataset

README = (Path(__file__).parents[1] / "README.md").read_text()

MORE = {"train": "--steps 2 --classifier-steps 2 --short-side 64 --passes 1", "export": "--force"}
"""Added to the README's commands: its training takes minutes, and what few steps teach may not survive 8 bits."""

RUN_ELSEWHERE = (
    "make ",
    "pip install",
    "alserve serve",
    "curl ",
    "alserve package",
    "alserve experiment",
    "bentoml ",
    "docker run",
)
"""Console commands that do not run here: the Makefile's run in CI, others in tests of their own, Docker's nowhere."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README speaks of: pictures/, tissue/ and masks/."""
    folder = tmp_path_factory.mktemp("reader")
    drawn = draw_dataset(folder / "drawn", seed=0, train_per_class=4, test_per_class=1, size=(96, 128)).parent
    (drawn / "images").rename(folder / "tissue")
    (drawn / "masks").rename(folder / "masks")
    write_atomic(folder / "pictures" / "a.jpg", next((folder / "tissue").rglob("*.jpg")).read_bytes())
    return folder


def run(command: list[str], folder: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "ALSERVE_MODEL"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env={**kept, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_commands_and_python_run(reader: Path) -> None:
    shell = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(shell) >= 5
    for line in shell:
        run(["bash", "-c", f"{line} {MORE.get(line.split()[1], '')}"], reader)
    (script,) = blocks("python")
    run([sys.executable, "-c", script], reader)
    assert list((reader / "results" / "masks").glob("*.png"))
    assert (reader / "figures.json").is_file()


def test_other_commands_are_those_run_elsewhere() -> None:
    console = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    assert console
    assert [line for line in console if not line.startswith(RUN_ELSEWHERE)] == []


def test_the_experiment_is_one(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "compare.yaml").write_text(text)
    assert list(read_experiment(tmp_path / "compare.yaml").methods) == ["random", "core-set", "label-propagation"]


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", README)
    assert pictures
    for picture in pictures:
        assert (Path(__file__).parents[1] / picture).is_file(), picture
