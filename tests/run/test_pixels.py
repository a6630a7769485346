"""Pixels in a file: what is written comes back, and a damaged file is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from training.run.pixels import MaskFile, PixelFile

SHAPES = st.lists(st.integers(1, 5), min_size=2, max_size=3).map(tuple)


@given(st.lists(arrays.arrays(np.uint8, SHAPES), max_size=5))
def test_arrays_come_back(tmp_path_factory: pytest.TempPathFactory, given: list[np.ndarray]) -> None:
    found = PixelFile.write(tmp_path_factory.mktemp("pixels") / "sub" / "file", iter(given))
    assert len(found) == len(given)
    for index, array in enumerate(given):
        np.testing.assert_array_equal(found[index], array)
        np.testing.assert_array_equal(found[index - len(given)], array)
        assert found.shape(index) == array.shape
        assert found[index].flags.writeable
    assert [array.tolist() for array in found] == [array.tolist() for array in given]
    assert [array.tolist() for array in found[::-2]] == [array.tolist() for array in given[::-2]]
    with pytest.raises(IndexError):
        found[len(given)]


def test_views_and_copies_for_other_processes(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    found = PixelFile.write(tmp_path / "file", [array[:, ::-1], array[..., 0]])
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    np.testing.assert_array_equal(again[0], array[:, ::-1])
    np.testing.assert_array_equal(again[1], array[..., 0])


def test_masks_by_image(tmp_path: Path) -> None:
    masks = MaskFile([7, 2], PixelFile.write(tmp_path / "file", [np.full((2, 3), value, np.uint8) for value in (1, 2)]))
    assert {image: int(mask.max()) for image, mask in masks.items()} == {7: 1, 2: 2}
    assert masks.shape(2) == (2, 3)
    assert 7 in masks
    assert masks.get(1) is None
    with pytest.raises(ValueError, match="2 masks of 1 images"):
        MaskFile([7], masks.masks)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    PixelFile.write(path, [np.ones((4, 5), np.uint8)] * 3)
    whole = path.read_bytes()
    for content in (b"", b"\0", whole[:-1], whole[1:], whole + b"\0", whole[:-8] + b"\xff" * 8, whole[20:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            PixelFile(path)


def test_a_stop_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        yield np.ones((4, 5), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PixelFile.write(tmp_path / "file", stopped())
    assert not list(tmp_path.iterdir())
