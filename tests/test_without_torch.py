"""The serving half alone: `pip install .` in a fresh environment without torch, used from another folder."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from server import call, serving

from alserve import __version__
from alserve.images.codec import decode, encode_png

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def alserve(programs: Path, tmp_path: Path) -> Run:
    """Run the installed command in a folder that is not the repository."""
    return lambda *arguments: call([programs / "alserve", *arguments], tmp_path)


def test_there_is_no_torch_and_the_package_is_the_installed_one(programs: Path, tmp_path: Path) -> None:
    torch = call([programs / "python", "-c", "import torch"], tmp_path)
    where = call([programs / "python", "-c", "import alserve; print(alserve.__file__)"], tmp_path)

    assert "No module named 'torch'" in torch.stderr
    assert Path(where.stdout.strip()).is_relative_to(programs.parent)


def test_a_folder_is_segmented_with_the_model_that_comes_along(alserve: Run, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sizes = {"one.png": (90, 130), "sub/two.png": (128, 70)}
    for name, (height, width) in sizes.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(random.integers(0, 256, (height, width, 3), dtype=np.uint8)))

    done = alserve("segment", "images", "--out", "results")

    assert done.returncode == 0, done.stderr
    results = tmp_path / "results"
    lines = [json.loads(line) for line in (results / "predictions.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok", "ok"]
    assert sorted((line["height"], line["width"]) for line in lines) == sorted(sizes.values())
    for name, shape in sizes.items():
        for kind in ("masks", "cams", "overlays"):
            assert decode((results / kind / name).read_bytes()).shape[:2] == shape
        assert set(np.unique(decode((results / "masks" / name).read_bytes()))) <= {0, 255}


def test_a_model_is_measured(alserve: Run, programs: Path, tmp_path: Path) -> None:
    for kind in ("images/regular", "images/irregular", "masks/regular"):
        path = tmp_path / kind / "1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(np.full((60, 80, 3), 128, np.uint8)))
    model = next(programs.parent.glob("**/alserve/models/demo.onnx"))

    done = alserve("evaluate", model, "images", "--masks", "masks", "--split", "train", "--worst", "worst.png")

    assert done.returncode == 0, done.stderr
    assert "PxAP" in done.stdout
    assert decode((tmp_path / "worst.png").read_bytes()).size


def test_the_service_answers(programs: Path, tmp_path: Path) -> None:
    with serving([str(programs / "alserve"), "serve"], tmp_path) as client:
        picture = encode_png(np.full((60, 80, 3), 128, np.uint8))
        answer = client.post("/predict", files={"image": picture}).raise_for_status().json()
        assert answer["label"] in client.get("/model").json()["classes"]
        assert (answer["height"], answer["width"]) == (60, 80)
        for part in ("/", "/page/main.js", "/page/examples/tissue-1.jpg"):
            client.get(part).raise_for_status()


def test_training_says_what_to_install(alserve: Run, tmp_path: Path) -> None:
    done = alserve("train", "images", "--out", "run")

    assert done.returncode == 2
    assert "pip install 'alserve[train]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_small_commands_work(alserve: Run, programs: Path) -> None:
    assert alserve("--version").stdout == f"alserve {__version__}\n"
    model = next(programs.parent.glob("**/alserve/models/demo.onnx"))
    info = alserve("info", model)
    assert info.returncode == 0, info.stderr
    assert "threshold" in info.stdout.lower()
    doctor = alserve("doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "onnxruntime" in doctor.stdout.lower().replace(" ", "")
