"""The bento: what `bentoml build` packs runs by itself, with its own model, and asks for no torch."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from server import clean_environment, serving

from alserve.images.codec import encode_png
from alserve.modelfile import default_model, read_metadata, write_metadata
from alserve.runtime.engine import Engine
from alserve.service.packaging import EXTRAS

REPOSITORY = Path(__file__).parents[2]
BENTOML = [sys.executable, "-m", "bentoml"]


def requirements(lines: list[str]) -> set[str]:
    """Return "name>=version" of each line, with one name for both builds of ONNX Runtime."""
    plain = (re.split(r"\s*[;#]", line)[0] for line in lines)
    return {line.replace("onnxruntime-gpu", "onnxruntime") for line in plain}


def page_files() -> set[Path]:
    """All that the page consists of, as it lies in the repository."""
    static = REPOSITORY / "alserve" / "service" / "page" / "static"
    return {path.relative_to(REPOSITORY) for path in static.rglob("*") if path.is_file()}


def recipe(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((REPOSITORY / name).read_text()))


def test_the_packages_are_those_of_the_distribution() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (cuda,) = project["optional-dependencies"]["cuda"]
    cpu, gpu = (set(recipe(name)["python"]["packages"]) for name in ("bentofile.yaml", "bentofile.gpu.yaml"))

    assert requirements([*cpu]) == requirements(project["dependencies"])
    assert gpu - cpu == {cuda.split(";")[0]}
    assert {line.split(">")[0] for line in cpu - gpu} == {"onnxruntime"}
    extras = {name: [line.replace("[default]", "") for line in packages] for name, packages in EXTRAS.items()}
    assert extras == {name: project["optional-dependencies"][name] for name in EXTRAS}


def test_the_two_recipes_differ_in_what_a_gpu_needs_only() -> None:
    cpu, gpu = recipe("bentofile.yaml"), recipe("bentofile.gpu.yaml")
    gpu["python"] = cpu["python"]  # compared above

    assert gpu["envs"].pop() == {"name": "ALSERVE_DEVICE", "value": "cuda"}
    assert gpu == cpu


def test_a_built_bento_serves_its_own_model(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "models")
    shutil.copytree(REPOSITORY / "alserve", source / "alserve", ignore=ignored)
    shutil.copy(REPOSITORY / "bentofile.yaml", source)
    (source / "models").mkdir()
    own = source / "models" / "own.onnx"
    data = default_model().read_bytes()
    own.write_bytes(write_metadata(data, read_metadata(data, "the demo").spec.model_copy(update={"threshold": 0.125})))

    built = subprocess.run(
        [*BENTOML, "build", "--output", "tag"],
        cwd=source,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    tag = built.stdout.strip().removeprefix("__tag__:")
    bento = tmp_path / "bentoml" / "bentos" / tag.replace(":", "/")
    shutil.rmtree(source)

    packed = {path.relative_to(bento / "src") for path in (bento / "src" / "alserve").rglob("*") if path.is_file()}
    page, templates = Path("alserve", "service", "page", "static"), Path("alserve", "templates")
    assert {path.suffix for path in packed if not path.is_relative_to(page)} == {".css", ".jinja", ".py"}
    assert {path for path in packed if path.is_relative_to(templates)} == {
        path.relative_to(REPOSITORY) for path in (REPOSITORY / templates).rglob("*") if path.is_file()
    }
    assert {path for path in packed if path.is_relative_to(page)} == page_files()
    assert "torch" not in (bento / "env" / "python" / "requirements.txt").read_text()
    assert yaml.safe_load((bento / "bento.yaml").read_text())["services"][0]["config"]["workers"] == 1
    with serving([*BENTOML, "serve", tag], tmp_path) as client:
        sha256 = client.get("/model").raise_for_status().json()["sha256"]
        assert sha256 == Engine(bento / "src" / "models" / "own.onnx").sha256 != Engine(default_model()).sha256
        picture = encode_png(np.full((64, 96, 3), 180, np.uint8))
        answer = client.post("/predict", files={"image": picture}).raise_for_status().json()
        assert (answer["height"], answer["width"]) == (64, 96)
        with pytest.raises(httpx.ConnectError):  # it listens on 127.0.0.1 only
            httpx.get(f"http://127.0.0.2:{client.base_url.port}/livez")


def test_the_name_of_the_service_in_older_bentofiles_still_serves(tmp_path: Path) -> None:
    older = [*BENTOML, "serve", "alserve.service:service"]
    with serving(older, tmp_path) as client:
        assert client.get("/model").raise_for_status().json()["sha256"] == Engine(default_model()).sha256
    look = "import sys, alserve.service.settings; print('bentoml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"  # nothing but the name itself imports it
