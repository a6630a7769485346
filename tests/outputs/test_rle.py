"""Run lengths, compared with the library that everybody reads them with."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from alserve.outputs.rle import decode_rle, encode_rle

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(MASKS)
def test_pycocotools_reads_what_was_written(mask: npt.NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(coco.decode(encode_rle(mask)), mask)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**16), st.floats(0, 1))
def test_the_text_is_that_of_pycocotools(height: int, width: int, seed: int, share: float) -> None:
    mask = np.zeros((height, width), np.bool_)
    rows, columns = np.random.default_rng(seed).integers(0, (height, width), (2, 2)).T
    mask[min(rows) : max(rows) + 1, : round(width * share)] = True
    mask[:, min(columns)] ^= True

    expected = coco.encode(np.asfortranarray(mask, np.uint8))
    assert encode_rle(mask) == {"size": [height, width], "counts": expected["counts"].decode()}


@given(MASKS, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_a_part_of_an_image_is_encoded_as_in_the_image(
    mask: npt.NDArray[np.bool_], left: int, top: int, right: int, bottom: int
) -> None:
    whole = np.pad(mask, ((top, bottom), (left, right)))
    assert encode_rle(mask, whole.shape, left=left, top=top) == encode_rle(whole)


@given(MASKS)
def test_a_mask_comes_back(mask: npt.NDArray[np.bool_]) -> None:
    encoded = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle(encoded), mask)
    expected = coco.encode(np.asfortranarray(mask, np.uint8))
    np.testing.assert_array_equal(decode_rle({**expected, "counts": expected["counts"].decode()}), mask)


@pytest.mark.parametrize("counts", ["", "zz", "o", [19], [21], [-1, 21], [20.0], [[20]]])
def test_damaged_run_lengths(counts: object) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        decode_rle({"size": [4, 5], "counts": counts})
