"""Label Studio's brush: the bytes that it writes itself, and nothing is lost on the way."""

from contextlib import suppress

import numpy as np
import pytest
from annotations import MASKS, Mask
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture

from alserve.label_studio.brush import decode_brush, encode_brush

SQUARE = np.zeros((6, 9), np.bool_)
SQUARE[1:4, 2:7] = True
SQUARE[5, 8] = True

# What label-studio-converter 0.0.59 makes of SQUARE with `mask2rle`, and of a picture of 3 x 4 pixels with some paint
# in all channels, of any strength, and colour without alpha in one pixel, with `encode_rle`.
SQUARE_BYTES = "000000d8391bfe2b00c27ff7c0309ffdf00c27ff92c023ff00"
PAINTED_BYTES = "00000030391bfc600003801000480c96c000010008003b00007fc2010ffc2010ffc20007fc6000"
PAINTED = np.array([[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], np.bool_)


def test_brush_bytes_are_those_of_label_studio() -> None:
    assert bytes(encode_brush(SQUARE)) == bytes.fromhex(SQUARE_BYTES)[:-1]  # which ends in a byte that nobody reads
    np.testing.assert_array_equal(decode_brush(bytes.fromhex(SQUARE_BYTES), SQUARE.shape), SQUARE)


def test_a_brush_paints_in_alpha_with_any_strength() -> None:
    np.testing.assert_array_equal(decode_brush(bytes.fromhex(PAINTED_BYTES), PAINTED.shape), PAINTED)


@given(MASKS)
def test_a_brush_mask_comes_back(mask: Mask) -> None:
    np.testing.assert_array_equal(decode_brush(bytes(encode_brush(mask)), (mask.shape[0], mask.shape[1])), mask)


@pytest.mark.parametrize("length", [1, 2, 4, 5, 64, 65, 2**14, 2**14 + 1, 3 * 2**14, 100_000])
def test_a_brush_run_of_any_length_comes_back(length: int) -> None:
    mask = np.zeros((1, length + 2), np.bool_)
    mask[0, 1:-1] = True
    np.testing.assert_array_equal(decode_brush(bytes(encode_brush(mask)), (1, length + 2)), mask)


@given(MASKS, st.integers(0, 400))
def test_damaged_brush_bytes_are_an_error_or_a_mask_of_the_right_shape(mask: Mask, place: int) -> None:
    data = bytearray(encode_brush(mask))
    data[place % len(data)] ^= 0x55
    with suppress(ValueError):
        assert decode_brush(bytes(data), (mask.shape[0], mask.shape[1])).shape == mask.shape


def test_a_brush_of_a_large_image_is_decoded() -> None:
    """As Label Studio writes it where little repeats: every value by itself."""
    alpha = picture(400, 600)[..., 0] > 128
    values = np.dstack([picture(400, 600), alpha * np.uint8(255)]).ravel()
    bits = f"{values.size:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    for start in range(0, values.size, 1 << 16):
        part = values[start : start + (1 << 16)]
        bits += f"011{len(part) - 1:016b}" + "".join(np.char.mod("%d", np.unpackbits(part)).tolist())
    data = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    np.testing.assert_array_equal(decode_brush(data, (400, 600)), alpha)


def test_a_brush_mask_of_many_runs_comes_back() -> None:
    mask = np.random.default_rng(0).random((200, 300)) > 0.5
    np.testing.assert_array_equal(decode_brush(bytes(encode_brush(mask)), (200, 300)), mask)
