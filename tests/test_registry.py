"""Registries of named parts: added once, found by name or told the nearest, and added by other distributions."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Cli, assert_refused
from folders import write_picture

from alserve.errors import OptionError
from alserve.outputs import OUTPUTS
from alserve.registry import Registry, suggest

PART = """
from animals import ANIMALS
ANIMALS.add("{name}")("{sound}")
"""


@pytest.fixture
def animals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[str]]:
    """A registry in a package of its own, with the parts "cat" and "cow"."""
    package = tmp_path / "animals"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from alserve.registry import Registry\nANIMALS = Registry('animal', __name__)\n"
    )
    (package / "cow.py").write_text(PART.format(name="cow", sound="moo"))
    (package / "cat.py").write_text(PART.format(name="cat", sound="meow"))
    (package / "helper.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    from animals import ANIMALS  # type: ignore[import-not-found]  # noqa: PLC0415

    yield ANIMALS
    for name in [name for name in sys.modules if name.partition(".")[0] in {"animals", "farm"}]:
        del sys.modules[name]


def install(folder: Path, module: str, group: str) -> None:
    """Install a distribution whose entry point names a module, as pip would leave it."""
    (folder / "farm-1.0.dist-info").mkdir()
    (folder / "farm-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: farm\nVersion: 1.0\n")
    (folder / "farm-1.0.dist-info" / "entry_points.txt").write_text(f"[{group}]\nfarm = farm\n")
    (folder / "farm.py").write_text(module)


def test_the_modules_of_the_folder_are_found_and_sorted(animals: Registry[str]) -> None:
    assert (list(animals), len(animals), animals["cow"]) == (["cat", "cow"], 2, "moo")
    assert ("cat" in animals, "dog" in animals) == (True, False)


def test_a_part_from_a_program(animals: Registry[str]) -> None:
    assert animals.add("dog")("woof") == "woof"
    assert (animals.find("dog"), list(animals)) == ("woof", ["cat", "cow", "dog"])


def test_a_name_is_given_once(animals: Registry[str]) -> None:
    sound = "woof"
    animals.add("dog")(sound)
    animals.add("dog")(sound)  # the same again, as when a module is imported twice
    with pytest.raises(ValueError, match="there is another animal 'dog'"):
        animals.add("dog")("bark")
    assert animals["dog"] == "woof"


def test_an_unknown_name_tells_the_nearest_and_all(animals: Registry[str]) -> None:
    with pytest.raises(OptionError, match=r"^unknown animal 'cta'; did you mean cat\? there are cat, cow$"):
        animals.find("cta")
    with pytest.raises(OptionError, match=r"^unknown animal 'zebra'; there are cat, cow$"):
        animals.find("zebra")
    with pytest.raises(KeyError):
        animals["zebra"]
    with pytest.raises(OptionError, match=r"^unknown animal 'x{40}'; there are"):
        animals.find("x" * 1000)
    assert suggest(3, ["30", "40"]) == "did you mean 30? there are 30, 40"


def test_another_distribution_adds_a_part(animals: Registry[str], tmp_path: Path) -> None:
    install(tmp_path, PART.format(name="sheep", sound="baa"), "animals")
    assert (animals["sheep"], list(animals)) == ("baa", ["cat", "cow", "sheep"])


def test_another_distribution_that_cannot_be_imported_is_one_line(animals: Registry[str], tmp_path: Path) -> None:
    install(tmp_path, "import no_such_module\n", "animals")
    assert animals["cat"] == "meow"  # what comes with the package does not need it
    with pytest.raises(
        OptionError, match=r"^farm: adds to the animals, but cannot be imported \(No module named"
    ) as caught:
        list(animals)
    assert "\n" not in str(caught.value)


def test_the_command_line_says_so_too(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "raise RuntimeError('first\\nsecond')\n", "alserve.outputs")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(OUTPUTS, "_all_are_loaded", False)
    assert_refused(
        cli("segment", write_picture(tmp_path / "a.png"), "--out", tmp_path / "out", "--save", "toy"),
        "farm: adds to the outputs",
        "pip uninstall",
    )
