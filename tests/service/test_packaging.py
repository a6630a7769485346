"""`alserve package`: what it makes runs by itself in an environment of its own; what stops it is said in one line."""

import json
import re
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import NamedTuple

import httpx
import pytest
import yaml
from server import UV, call, serving
from web import PNG, assert_refused, claiming_png, decoded

from alserve.modelfile import default_model, read_metadata, write_metadata
from alserve.runtime.engine import Engine

PACKAGE = [sys.executable, "-m", "alserve", "package"]
NO_INDEX = {"UV_OFFLINE": "1", "UV_NO_CACHE": "1"}
"""Makes uv, which looks up the packages' versions for BentoML, find nothing."""

CONTAINERFILE = "import sys, bentoml; bentoml.container.get_containerfile(sys.argv[1], output_path=sys.argv[2])"


class Bento(NamedTuple):
    """A packed model."""

    tag: str
    path: Path
    model: Path
    home: Path
    """Where it was packed."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that is not the one that comes with the package, under a name that needs care."""
    path = tmp_path_factory.mktemp("model") / "my model.onnx"
    data = default_model().read_bytes()
    path.write_bytes(write_metadata(data, read_metadata(data, "the demo").spec.model_copy(update={"threshold": 0.125})))
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where pip reaches no package index."""
    folder = tmp_path_factory.mktemp("index")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "shellingham"]
    done = call(pip, folder)
    if done.returncode:
        pytest.skip(f"pip reaches no package index: {done.stderr.splitlines()[-1]}")


@pytest.fixture(scope="module")
def bento(index: None, programs: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bento:  # noqa: ARG001
    """Packed by the installed distribution, without torch and far from the repository."""
    home = tmp_path_factory.mktemp("packing")
    done = call([programs / "alserve", "package", model, "--tag", "tissue"], home)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, last = done.stdout.splitlines()
    tag, path = re.fullmatch(r"(tissue:\w+), \d+\.\d MB, in (.+)", first).groups()  # type: ignore[union-attr]
    assert last == f"Now run: bentoml containerize {tag}"
    return Bento(tag, Path(path), model, home)


@pytest.fixture(scope="module")
def own_programs(bento: Bento, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install what the bento lists, as its Dockerfile does; return the folder of the environment's programs."""
    folder = tmp_path_factory.mktemp("container")
    requirements = bento.path / "env" / "python" / "requirements.txt"
    for command in (
        [*UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"],
        [*UV, "pip", "install", "--quiet", "--python", folder / "venv" / "bin" / "python", "-r", requirements],
    ):
        done = call(command, folder)
        assert done.returncode == 0, done.stderr
    (script,) = (bento.path / "env" / "docker").glob("script__*")
    programs = folder / "venv" / "bin"
    built = {"PATH": f"{programs}:/usr/bin:/bin", "VIRTUAL_ENV": str(folder / "venv"), "BENTO_PATH": str(bento.path)}
    done = call(["sh", script], folder, **built)
    assert done.returncode == 0, done.stderr
    return programs


def containerfile(bento: Bento) -> list[str]:
    """The lines that `bentoml containerize` hands to Docker."""
    path = bento.home / "Dockerfile"
    done = call([sys.executable, "-c", CONTAINERFILE, bento.tag, path], bento.home)
    assert done.returncode == 0, done.stderr
    return path.read_text().splitlines()


def container_environment(lines: list[str]) -> dict[str, str]:
    """The variables that a containerfile's ARG and ENV lines set."""
    values = {"PATH": "/usr/bin:/bin"}
    for line in lines:
        if line.startswith(("ARG ", "ENV ")):
            name, _, value = line[4:].partition("=")
            values[name] = Template(value).substitute(values)
    return values


def times(folder: Path) -> dict[Path, int]:
    """When each file and folder was changed."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_the_bento_holds_this_model_only_and_says_which(bento: Bento) -> None:
    labels = yaml.safe_load((bento.path / "bento.yaml").read_text())["labels"]
    (packed,) = bento.path.rglob("*.onnx")

    assert packed.read_bytes() == bento.model.read_bytes()
    assert labels["model"] == "my model.onnx"
    assert labels["sha256"] == Engine(bento.model).sha256


def test_the_container_is_not_root_and_has_its_libraries(bento: Bento) -> None:
    lines = containerfile(bento)
    environment = container_environment(lines)
    (libraries,) = [line for line in lines if "libgl1" in line]

    assert [line for line in lines if line.startswith("USER ")][-1] == "USER bentoml"
    assert int(environment["BENTO_USER_UID"]) > 0
    assert next(line for line in lines if line.startswith("FROM ")).startswith("FROM python:3.11-slim")
    assert re.match(r"RUN .*apt-get install .*\blibglib2\.0-0\b", libraries)
    assert environment["BENTOML_DO_NOT_TRACK"] == "True"
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    requirements = (bento.path / "env" / "python" / "requirements.txt").read_text()
    assert "torch" not in requirements + "\n".join(lines)
    pinned = [line for line in requirements.splitlines() if line and not line.startswith("-")]
    assert all("==" in line for line in pinned)
    assert any(line.startswith("onnxruntime==") for line in pinned)


def test_it_runs_on_what_it_lists_and_writes_to_the_temporary_folder_only(
    bento: Bento, own_programs: Path, tmp_path: Path
) -> None:
    torch = call([own_programs / "python", "-c", "import torch"], tmp_path)
    assert "No module named 'torch'" in torch.stderr

    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    environment = container_environment(containerfile(bento)) | {
        "PATH": f"{own_programs}:/usr/bin:/bin",
        "BENTO_PATH": str(bento.path),
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "BENTOML_HOME": str(tmp_path / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",  # a read-only file system does that
    }
    before = times(bento.path) | times(own_programs.parent) | times(tmp_path / "home")
    start = ["bash", str(bento.path / "env" / "docker" / "entrypoint.sh")]
    with serving(start, tmp_path, **environment) as client:
        httpx.get(f"http://127.0.0.2:{client.base_url.port}/livez").raise_for_status()  # a container's port, for all
        assert client.get("/model").raise_for_status().json()["sha256"] == Engine(bento.model).sha256
        assert client.get("/readyz").status_code == 200
        for part in ("/", "/page/main.js", "/page/examples/tissue-1.jpg", "/docs", "/metrics"):
            client.get(part).raise_for_status()
        answer = client.post("/predict", files={"image": PNG}).raise_for_status().json()
        assert (answer["height"], answer["width"]) == (150, 217)
        assert answer["threshold"] == 0.125
        mask = decoded(client.post("/segment", content=PNG).raise_for_status().content)
        assert mask.shape == (150, 217)
        assert_refused(client.post("/predict", content=claiming_png(20_000, 20_000)), 413, "pixels")
        assert_refused(client.post("/predict", content=b"no image"), 415, "kind")
    assert times(bento.path) | times(own_programs.parent) | times(tmp_path / "home") == before


def test_its_container_segments_folders(bento: Bento, own_programs: Path, tmp_path: Path) -> None:
    (command,) = [line for line in containerfile(bento) if "script__" in line]
    assert re.fullmatch(r"RUN +chmod \+x (\./env/docker/script__\w+) && \1", command.strip())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(PNG)
    entry = ["bash", bento.path / "env" / "docker" / "entrypoint.sh"]
    container = {"PATH": f"{own_programs}:/usr/bin:/bin", "BENTO_PATH": str(bento.path), "ALSERVE_CACHE": "/dev/null"}

    def run(*words: str) -> str:
        done = call([*entry, *words], tmp_path, **container)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(bento.path) in run("python", "-c", "import alserve; print(alserve.__file__)")
    assert run("alserve", "segment", "pictures", "--out", "whole").startswith("1 image,")
    assert {"summary.html", "masks"} <= {path.name for path in (tmp_path / "whole").iterdir()}
    (row,) = map(json.loads, (tmp_path / "whole" / "predictions.jsonl").read_text().splitlines())
    assert row["model"] == Engine(bento.model).sha256  # the packed one, wherever it is called
    for shard in ("1/2", "2/2"):
        run("alserve", "segment", "pictures", "--out", "parts", "--shard", shard)
    assert run("alserve", "merge", "parts").startswith("1 image")


@pytest.mark.usefixtures("index")
def test_extras_are_installed_as_well(model: Path, tmp_path: Path) -> None:
    done = call([*PACKAGE, model, "--extra", "cloud", "--extra", "ray", "--tag", "tissue:more"], tmp_path)
    assert done.returncode == 0, done.stderr

    path = tmp_path / "bentoml" / "bentos" / "tissue" / "more"
    requirements = (path / "env" / "python" / "requirements.txt").read_text()
    assert re.search(r"^obstore==", requirements, re.MULTILINE)
    for package in ("ray", "aiohttp-cors"):  # the last: of Ray's dashboard
        assert re.search(rf"^{package}(\[.+\])?==", requirements, re.MULTILINE), package
    assert "torch" not in requirements
    lines = containerfile(Bento("tissue:more", path, model, tmp_path))
    assert any("libgl1" in line and "wget" in line for line in lines)

    assert_stopped(call([*PACKAGE, model, "--extra", "train"], tmp_path), "--extra: 'train' is unknown")


@pytest.mark.usefixtures("index")
def test_for_a_gpu_it_asks_for_cuda_and_never_runs_without(model: Path, tmp_path: Path) -> None:
    done = call([*PACKAGE, model, "--gpu", "--tag", "tissue:gpu"], tmp_path)
    assert done.returncode == 0, done.stderr

    path = tmp_path / "bentoml" / "bentos" / "tissue" / "gpu"
    requirements = (path / "env" / "python" / "requirements.txt").read_text()
    assert re.search(r"^onnxruntime-gpu(\[.*\])?==", requirements, re.MULTILINE)
    assert not re.search(r"^onnxruntime==", requirements, re.MULTILINE)
    for library in ("nvidia-cublas", "nvidia-cudnn"):
        assert library in requirements
    lines = containerfile(Bento("tissue:gpu", path, model, tmp_path))
    assert container_environment(lines)["ALSERVE_DEVICE"] == "cuda"

    again = call([*PACKAGE, model, "--tag", "tissue:gpu"], tmp_path)
    assert_stopped(again, "bento tissue:gpu cannot be made", "already exists")


def assert_stopped(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line that says why, and nothing else."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize("bytes_", [None, b"", b"no model", "cut", "flipped"])
def test_a_model_that_does_not_work_is_not_packed(bytes_: bytes | str | None, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    data = model.read_bytes()
    match bytes_:
        case "cut":
            broken.write_bytes(data[: len(data) // 2])
        case "flipped":
            middle = len(data) // 2
            broken.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case bytes():
            broken.write_bytes(bytes_)

    assert_stopped(call([*PACKAGE, broken], tmp_path), str(broken))
    assert not (tmp_path / "bentoml" / "bentos" / "alserve").exists()


@pytest.mark.parametrize("tag", ["two words", "name:1:2", "-x", "a" * 64])
def test_a_tag_that_cannot_be_is_refused(tag: str, model: Path, tmp_path: Path) -> None:
    assert_stopped(call([*PACKAGE, model, "--tag", tag], tmp_path), f"bento {tag} cannot be made: ")


def test_without_a_package_index_it_says_so(model: Path, tmp_path: Path) -> None:
    assert_stopped(call([*PACKAGE, model], tmp_path, **NO_INDEX), "package index")


def test_a_full_disk_is_one_line(model: Path, tmp_path: Path) -> None:
    """A limit on the size of a file fails a write as a full disk does."""
    limited = ["bash", "-c", 'ulimit -f 1000; exec "$@"', "bash", *PACKAGE, model]
    assert_stopped(call(limited, tmp_path), "cannot write", "BENTOML_HOME")


def test_a_missing_bentoml_is_named(model: Path, tmp_path: Path) -> None:
    without = "import sys; sys.modules['bentoml'] = None; from alserve.cli import main; main()"
    assert_stopped(call([sys.executable, "-c", without, "package", model], tmp_path), "pip install bentoml")
