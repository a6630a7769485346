"""Masks in which the background was painted: asked about where a person drew them, said of a data set's own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, picture

from alserve.errors import DataError
from alserve.files import write_atomic
from alserve.measure.dataset import load_dataset
from alserve.terminal import say_once
from training.annotate.annotation_io import import_masks
from training.annotate.checks import looks_inverted
from training.annotate.oracle import FolderOracle, SimulatedOracle

SHAPE = (40, 60)


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> Iterator[None]:
    say_once.cache_clear()
    yield
    say_once.cache_clear()


def object_of(height: int, width: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[2 : 2 + height, 3 : 3 + width] = True
    return mask


@given(st.integers(1, 27), st.integers(1, 40))
def test_an_object_inside_the_image_is_inverted_where_its_background_is_painted(height: int, width: int) -> None:
    mask = object_of(height, width)
    assert not looks_inverted(mask)
    assert looks_inverted(~mask)


def test_what_is_not_taken_for_inverted() -> None:
    everything, frame, half = np.ones(SHAPE, np.bool_), ~object_of(36, 54), np.ones(SHAPE, np.bool_)
    half[:, :12] = False
    for mask in (everything, ~everything, frame, half):
        assert not looks_inverted(mask)


def test_a_person_confirms_it_with_an_empty_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "data" / "a" / "1.jpg", encoded(picture(*SHAPE), "JPEG"))
    masks, samples = tmp_path / "work" / "masks" / "a", load_dataset(tmp_path / "data").samples
    write_atomic(masks / "1.png", encoded(~object_of(9, 9) * np.uint8(255)))
    with pytest.raises(DataError, match=r"1\.png: 97 % .* invert it, .* an empty file 1\.full beside it"):
        FolderOracle(tmp_path / "work").ask(samples)
    with pytest.raises(DataError, match="invert it"):
        import_masks(tmp_path / "work" / "masks", tmp_path / "imported")
    write_atomic(masks / "1.full", b"")
    (answer,) = FolderOracle(tmp_path / "work").ask(samples)
    np.testing.assert_array_equal(answer, ~object_of(9, 9))


def test_of_a_data_sets_own_masks_it_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = [~object_of(9, 9), ~object_of(20, 30), object_of(9, 9)]
    for number, mask in enumerate(masks):
        write_atomic(tmp_path / "data" / "a" / f"{number}.jpg", encoded(picture(*SHAPE), "JPEG"))
        write_atomic(tmp_path / "masks" / "a" / f"{number}.png", encoded(mask * np.uint8(255)))
    samples = load_dataset(tmp_path / "data", tmp_path / "masks").samples
    SimulatedOracle().ask(samples[1:])  # one of two
    assert not capsys.readouterr().err
    for _ in range(2):
        answers = SimulatedOracle().ask(samples)
    np.testing.assert_array_equal(np.stack([np.asarray(answer) for answer in answers]), masks)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "most of the data set's masks" in said
