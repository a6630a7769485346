"""Progress of a folder run: images, or tiles where a few images are cut into many."""

import re
from pathlib import Path

import pytest
from folders import manifest, write_picture

from alserve import Predictor, terminal
from alserve.files import write_atomic
from alserve.folder import progress
from alserve.folder.segment import segment


@pytest.fixture(autouse=True)
def _every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PLAIN_LINE_SECONDS", 0.0)


def shown(capsys: pytest.CaptureFixture[str]) -> list[tuple[int, int, str]]:
    """The (done, total, unit) of each line of progress."""
    found = re.findall(r"alserve: (\d+) of (\d+) (\w+), [0-9.]+ \w+/", capsys.readouterr().err)
    return [(int(done), int(total), unit) for done, total, unit in found]


def test_the_tiles_of_one_large_image_are_counted_while_they_are_done(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_picture(tmp_path / "a.png", 300, 400)
    segment(source, out=tmp_path / "out", model=predictor, save="mask", tile=100, overlap=0)
    assert shown(capsys) == [(done, 12, "tiles") for done in range(1, 13)]


def test_whole_and_failed_images_count_as_well(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    large = write_picture(tmp_path / "in" / "a.png", 200, 200)
    data = large.read_bytes()
    write_atomic(tmp_path / "in" / "damaged.png", data[:1000] + bytes(1000) + data[2000:])
    write_picture(tmp_path / "in" / "small.png", 50, 50)
    write_picture(tmp_path / "in" / "larger.png", 200, 300)
    write_atomic(tmp_path / "in" / "none.png", b"no image")
    result = segment(
        tmp_path / "in", out=tmp_path / "out", model=predictor, save="mask", tile=100, overlap=0, max_pixels=50_000
    )
    lines = shown(capsys)
    assert {(total, unit) for _, total, unit in lines} == {(4 + 4 + 1 + 1 + 1, "tiles")}
    assert lines[-1][0] == 11
    assert [done for done, _, _ in lines] == sorted(done for done, _, _ in lines)
    assert (result.images, result.failed) == (5, 3)


@pytest.mark.parametrize("tile", [None, 200])
def test_images_are_counted_where_none_is_cut(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], tile: int | None
) -> None:
    for index in range(3):
        write_picture(tmp_path / "in" / f"{index}.png")
    segment(tmp_path / "in", out=tmp_path / "out", model=predictor, save="mask", tile=tile)
    assert shown(capsys) == [(done, 3, "images") for done in (1, 2, 3)]


def test_images_are_counted_where_there_are_many(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "FEW", 1)
    for index in range(2):
        write_picture(tmp_path / "in" / f"{index}.png", 200, 200)
    segment(tmp_path / "in", out=tmp_path / "out", model=predictor, save="mask", tile=100)
    assert shown(capsys) == [(1, 2, "images"), (2, 2, "images")]


def test_a_too_large_image_names_the_options_that_help(tmp_path: Path, predictor: Predictor) -> None:
    source = write_picture(tmp_path / "a.png", 200, 200)
    for tile, words in ((None, "use --tile to cut it, which allows more, or --max-pixels"), (100, "use --max-pixels")):
        segment(source, out=tmp_path / "out", model=predictor, save="mask", tile=tile, max_pixels=30_000)
        (row,) = manifest(tmp_path / "out")
        assert row["error"] == f"the image has 200 x 200 pixels, more than the 30,000 allowed; {words} to allow more"
