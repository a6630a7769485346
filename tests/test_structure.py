"""The structure of the code: folders import one way, and no module is longer than 400 lines."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = [path for half in ("alserve", "training") for path in sorted((REPOSITORY / half).rglob("*.py"))]
MOST_LINES = 400
USE_TRAINING = {"alserve.api", "alserve.cli"}
"""The only places of `alserve` that import `training`, when one of its commands is called."""


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def folder_of(module: str) -> str:
    """The folder below `alserve` or `training` that a module is in, or the module itself where it is in none."""
    return ".".join(module.split(".")[:2])


def arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        there = {folder_of(name) for name in imports(path) if name in MODULES}
        found.setdefault(folder_of(module), set()).update(there - {folder_of(module), "alserve", "training"})
    return found


def test_folders_import_one_way() -> None:
    left = arrows()
    while ready := [folder for folder, needed in left.items() if not needed & left.keys()]:
        for folder in ready:
            del left[folder]
    assert not left, f"these folders import each other in a circle: {sorted(left)}"


def test_what_serves_does_not_import_what_trains() -> None:
    for module, path in MODULES.items():
        names = set(imports(path))
        if module.startswith("alserve"):
            assert not {name for name in names if name.split(".")[0] in {"torch", "timm", "lightning"}}, module
            if folder_of(module) not in USE_TRAINING:
                assert not {name for name in names if name.split(".")[0] == "training"}, module


@pytest.mark.parametrize("path", [*SOURCES, *sorted((REPOSITORY / "tests").rglob("*.py"))], ids=module_name)
def test_no_module_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="the tests run in one process")
def test_the_tests_of_a_file_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """What they share is made once; pytest-xdist tells by a test's name that it knows the test's group."""
    assert request.node.nodeid.endswith("@test_structure.py")
