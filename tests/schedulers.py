"""What starts the files of `alserve cluster-template`: the kubelet, Slurm and Ray, as far as a command sees them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

PROGRAMS = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
"""The environment in which `alserve` is the one under test."""


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """Return what the kubelet makes of a word of a container: `$(NAME)` is replaced where it is known, `$$` is `$`."""

    def replace(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else environment.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replace, text)


def documents(text: str) -> list[dict[str, Any]]:
    """Return the objects of a file for `kubectl apply`."""
    return list(yaml.safe_load_all(text))


def container_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the one container of a Job of Kubernetes."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return dict(container)


def run_container(container: Mapping[str, Any], folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Start a container's command as the kubelet would, in `folder`."""
    words = [expanded(word, environment) for word in (*container["command"], *container["args"])]
    return run(words, folder, **environment)


def run(words: Iterable[str | Path], folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in `folder`."""
    return subprocess.run(
        [*words],
        cwd=folder,
        env={**os.environ, **PROGRAMS, **environment},
        capture_output=True,
        check=False,
        timeout=120,
    )
