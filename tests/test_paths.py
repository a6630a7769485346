"""No name leads out of its folder, on any system."""

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alserve.errors import DataError
from alserve.paths import below, check_name, printable

PIECES = st.sampled_from(
    ["a", "é", "..", ".", "", "/", "\\", "C:", ":", "~", "con", "NUL.txt", " ", "\0", "\n", "\udcff"]
)
NAMES = st.one_of(
    st.text(max_size=20), st.lists(PIECES, max_size=8).map("".join), st.lists(PIECES, max_size=8).map("/".join)
)


@given(NAMES)
@example("..")
@example("a/../../b")
@example("C:\\x")
@example("0/A:")
@example("//server/share/x")
def test_a_name_is_refused_or_stays_below_its_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "folder"
    try:
        path = below(folder, name)
    except DataError as error:
        line = str(error)
        line.encode()
        assert len(line.splitlines()) == 1
        return
    assert path != folder
    assert path.resolve().is_relative_to(folder.resolve())
    for kind in (PurePosixPath, PureWindowsPath):
        inside = kind("folder") / kind(name)
        assert inside.parts[0] == "folder"
        assert ".." not in inside.parts
        assert len(inside.parts) == 1 + len(name.split("/"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "no name"),
        (".", "no name"),
        ("./a", "no name"),
        ("..", "leads out"),
        ("a/../b", "leads out"),
        ("/etc/passwd", "leads out"),
        ("C:x", "leads out"),
        ("c:/x", "leads out"),
        ("a/c:x", "leads out"),
        ("//server/share/x", "leads out"),
        ("a//b", "two slashes"),
        ("a/", "at its end"),
        ("a\\b", "backslash"),
        ("a\0", "control character"),
        ("a\nb", "control character"),
        ("CON", "Windows"),
        ("a/nul.png", "Windows"),
        ("com1 .png", "Windows"),
        ("a.", "Windows"),
        ("a /b", "Windows"),
    ],
)
def test_names_that_are_refused(name: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_name(name)


@pytest.mark.parametrize(
    "name", ["a", "a b/c.d/é.png", "..a/a..b", "console/com10.png", "10:30.png", "~", "-", ".hidden"]
)
def test_names_that_are_kept(tmp_path: Path, name: str) -> None:
    assert below(tmp_path, name) == tmp_path / name


def test_links_are_followed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for folder in ("inside", "../outside"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "photo.png").touch()
    try:
        (out / "there").symlink_to(tmp_path / "outside", target_is_directory=True)
        (out / "here").symlink_to(out / "inside", target_is_directory=True)
        (out / "1.png").symlink_to(tmp_path / "photo.png")
        (out / "loop").symlink_to(out / "loop")
        (tmp_path / "alias").symlink_to(out, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no symbolic links for this user")
    assert below(out, "here/1.png") == out / "here" / "1.png"
    assert below(tmp_path / "alias", "a/1.png") == tmp_path / "alias" / "a" / "1.png"
    for name in ("there/1.png", "1.png"):
        with pytest.raises(DataError, match="a symbolic link leads out of"):
            below(out, name)


@given(st.text())
def test_what_is_printed_is_one_line_of_utf_8(text: str) -> None:
    line = printable(text)
    assert len(line.splitlines()) <= 1
    assert printable(line) == line
    line.encode()


def test_what_is_printed_keeps_letters_and_shows_the_rest() -> None:
    assert printable("Drüse 腺\n\x1b[31m" + os.fsdecode(b"\xff")) == "Drüse 腺\\n\\x1b[31m\\udcff"
