"""Make a bento: one model, the serving half of this package as it is installed, and the list of what they need."""

import logging
import os
from collections.abc import Collection
from pathlib import Path
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory
from typing import NamedTuple

from alserve.errors import PackageError
from alserve.files import write_atomic
from alserve.service.loading import load_engine

_PACKAGE = Path(__file__).parents[1]
_SETUP = "service/container.sh"
"""What the recipes run while the image is built."""

EXTRAS = {"cloud": ("obstore>=0.12",), "openvino": ("openvino>=2026.0",), "ray": ("ray[default]>=2.60",)}
"""Packages of the extras that run models; kept in step with pyproject.toml by a test.

A cluster needs Ray's default part as well: its dashboard takes jobs.
"""

_SYSTEM_PACKAGES = {"ray": ("wget",)}
"""Debian's packages that an extra needs: KubeRay before 1.6 asks with wget whether a pod is well."""


class Package(NamedTuple):
    """A bento in BentoML's store, ready to become a container."""

    tag: str
    """NAME:VERSION."""
    path: Path
    """Its folder."""
    size: int
    """Bytes of its files; what it needs is installed in the container only."""

    def __str__(self) -> str:
        """Say what there is, and how to go on."""
        return f"{self.tag}, {self.size / 1e6:.1f} MB, in {self.path}\nNow run: bentoml containerize {self.tag}"


def package_model(model: Path, *, gpu: bool = False, extras: Collection[str] = (), tag: str = "alserve") -> Package:
    """Check a model and make a bento of it, in BentoML's store (`$BENTOML_HOME`).

    The versions of all packages are looked up and pinned, so a package index must be within reach.

    Args:
        model: The model file; only this one goes in.
        gpu: Ask for ONNX Runtime with CUDA and cuDNN.
        extras: Names of `EXTRAS` that are installed, too.
        tag: NAME or NAME:VERSION; without a version BentoML makes a new one.

    Raises:
        ModelError: The file is missing, no model, or of a newer format, or does not work.
        PackageError: BentoML is missing, does not accept the tag, has it already, or finds no package index; or the
            disk is full.
    """
    os.environ.setdefault("BENTOML_QUIET", "True")  # BentoML's errors reach the user as ours
    logging.getLogger("bentoml").setLevel(logging.ERROR)
    try:
        import bentoml  # noqa: PLC0415  slow to import, and told above to be quiet
        import yaml  # noqa: PLC0415  BentoML needs it, too
        from bentoml.exceptions import BentoMLException  # noqa: PLC0415
    except ImportError as error:
        raise PackageError(f"packing needs BentoML ({error}); run: pip install bentoml") from None

    engine = load_engine(model, device="cpu", threads=1)
    name, _, version = tag.partition(":")
    with TemporaryDirectory(prefix="alserve-") as folder:
        try:
            recipe = yaml.safe_load(_bentofile(gpu=gpu).read_bytes())
            for extra in dict.fromkeys(extras):
                recipe["python"]["packages"] += EXTRAS[extra]
                recipe["docker"]["system_packages"] += _SYSTEM_PACKAGES.get(extra, ())
            _collect(model, yaml.safe_dump(recipe), Path(folder))
            bento = bentoml.bentos.build_bentofile(
                f"{folder}/bentofile.yaml",
                name=name,
                version=version or None,
                labels={"model": model.name, "sha256": engine.sha256},
                build_ctx=folder,
            )
        except (BentoMLException, ValueError) as error:
            if isinstance(error.__cause__, CalledProcessError):
                raise PackageError(
                    "the packages' versions cannot be looked up; is a package index within reach of uv?"
                ) from None
            raise PackageError(f"bento {tag} cannot be made: {' '.join(str(error).split())}") from None
        except OSError as error:
            raise PackageError(
                f"cannot write to {folder} or to BentoML's store: {error.strerror or error}; "
                "make room, or set TMPDIR and BENTOML_HOME"
            ) from None
    return Package(str(bento.tag), Path(bento.path), bento.total_size())


def _bentofile(*, gpu: bool) -> Path:
    """Find the recipe: inside the installed package, or in the checkout."""
    name = "bentofile.gpu.yaml" if gpu else "bentofile.yaml"
    installed = _PACKAGE / name
    return installed if installed.is_file() else _PACKAGE.parent / name


def _collect(model: Path, recipe: str, folder: Path) -> None:
    """Lay out the files as the recipe wants them: bentofile.yaml, alserve/, models/ with one model."""
    write_atomic(folder / "bentofile.yaml", recipe.encode())
    write_atomic(folder / "models" / "model.onnx", model.read_bytes())
    data = ("service/page/static/**/*", "templates/**/*", _SETUP)
    for path in (*_PACKAGE.rglob("*.py"), *(path for pattern in data for path in _PACKAGE.glob(pattern))):
        if path.is_file():
            write_atomic(folder / "alserve" / path.relative_to(_PACKAGE), path.read_bytes())
