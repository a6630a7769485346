"""The commands and the Python of README and documentation are run as a reader would run them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import PAGES, README, ROOT, blocks, lines

from alserve import Predictor
from alserve.files import write_atomic
from training.compare.experiment import read_experiment
from training.data.synthetic import draw_dataset

MORE = {"train": "--steps 2 --classifier-steps 2 --short-side 64 --passes 1", "export": "--force"}
"""Added to commands: their training takes minutes, and what few steps teach may not survive 8 bits."""

WAITING = 3
"""Exit code of a run that waits for a person's masks."""

RUN_ELSEWHERE = (
    "make ",
    "pip install",
    "alserve serve",
    "alserve masks import",
    "alserve annotate",
    "alserve train tissue --oracle browser",
    "alserve train tissue --oracle label-studio",
    "export LABEL_STUDIO_",
    "export AWS_",
    "alserve segment s3://",
    "alserve evaluate s3://",
    "alserve train s3://",
    "alserve segment slides --out results --engine ray",
    "ALSERVE_LABEL_STUDIO_FILES=",
    "curl ",
    "alserve package",
    "alserve cluster-template",
    "job=$(sbatch",
    "sbatch ",
    "kubectl ",
    "alserve experiment",
    "bentoml ",
    "docker run",
    "docker push",
)
"""Console commands that do not run here: the Makefile's run in CI, others in tests of their own, those of Docker and of
schedulers nowhere."""

OF_TISSUE = [
    page
    for page in PAGES
    if page.stem in {"getting-started", "your-data", "annotate", "compare", "segment", "clusters"}
]
"""Pages that speak of the same folders and the same model as the README."""


class Reader:
    """Somebody who types what the pages say, in a folder with pictures/, tissue/ and masks/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.typed = set[str]()
        drawn = draw_dataset(folder / "drawn", seed=0, train_per_class=4, test_per_class=1, size=(96, 128)).parent
        (drawn / "images").rename(folder / "tissue")
        (drawn / "masks").rename(folder / "masks")
        write_atomic(folder / "pictures" / "a.jpg", next((folder / "tissue").rglob("*.jpg")).read_bytes())

    def follow(self, page: Path) -> None:
        """Run a page's commands, but for those that were run before, and then its Python."""
        for line in lines(page, "bash"):
            if line not in self.typed:
                self.typed.add(line)
                expected = WAITING if "--oracle folder:" in line else 0
                self.run(["bash", "-c", f"{line} {MORE.get(line.split()[1], '')}"], expected)
        for script in blocks(page, "python"):
            self.run([sys.executable, "-c", script])

    def run(self, command: list[str], expected: int = 0) -> None:
        kept = {name: value for name, value in os.environ.items() if name != "ALSERVE_MODEL"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=self.folder, env={**kept, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A reader who has followed the README."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    reader.follow(README)
    return reader


def test_readme(reader: Reader) -> None:
    assert len(reader.typed) >= 4
    assert list((reader.folder / "results" / "masks").glob("*.png"))


@pytest.mark.parametrize("page", OF_TISSUE, ids=lambda page: page.stem)
def test_page(reader: Reader, page: Path) -> None:
    reader.follow(page)
    assert lines(page, "bash")
    assert reader.typed.issuperset(lines(page, "bash"))


def test_every_shell_block_is_run() -> None:
    assert [page.name for page in PAGES if lines(page, "bash") and page not in [README, *OF_TISSUE]] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_other_commands_are_those_run_elsewhere(page: Path) -> None:
    assert [line for line in lines(page, "console") if not line.startswith(RUN_ELSEWHERE)] == []


def test_the_experiment_is_one(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "docs" / "compare.md", "yaml")
    (tmp_path / "compare.yaml").write_text(text)
    assert list(read_experiment(tmp_path / "compare.yaml").methods) == ["masks-only", "core-set", "label-propagation"]


def test_the_model_file_is_read_without_alserve(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = blocks(ROOT / "docs" / "model-file.md", "python")
    assert "alserve import" not in script
    (tmp_path / "script.py").write_text(script)
    (tmp_path / "tissue.onnx").symlink_to(ROOT / "models" / "demo.onnx")
    drawn = draw_dataset(tmp_path / "drawn", seed=1, train_per_class=1, test_per_class=0, size=(300, 410)).parent
    image = next((drawn / "images").rglob("*.jpg"))
    write_atomic(tmp_path / "pictures" / "a.jpg", image.read_bytes())
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path("script.py")
    expected = predictor.predict(image)
    assert found["spec"]["classes"][int(np.argmax(found["scores"][0]))] == expected.label
    assert 0.1 < found["foreground"].mean() < 0.9
    assert (found["foreground"] != expected.mask()).mean() < 1e-4  # threads change the last bits


def test_every_registry_has_a_recipe_that_works(tmp_path: Path) -> None:
    recipes = blocks(ROOT / "docs" / "extending.md", "python")
    checks = [
        f"from {package} import {registry}; assert {name!r} in {registry}"
        for package, registry, name in (
            ("training.query", "STRATEGIES", "margin"),
            ("alserve.outputs", "OUTPUTS", "blackened"),
            ("alserve.runtime.libraries", "RUNTIMES", "reference"),
            ("alserve.service.endpoints", "ENDPOINTS", "classes"),
            ("training.annotate.formats", "FORMATS", "npz"),
            ("training.data.importers", "IMPORTERS", "folders"),
        )
    ]
    (tmp_path / "script.py").write_text("\n\n".join([*recipes, *checks]))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
