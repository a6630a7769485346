"""Bytes to pixels: every kind of file, turned upright; every kind of damage, refused in words."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, picture
from PIL import Image, ImageOps

from alserve.errors import ImageError
from alserve.files import write_atomic
from alserve.images.codec import (
    decode,
    decode_mask,
    decode_picture,
    encode_png,
    peek_shape,
    read_image,
)
from alserve.images.header import FORMATS, MAX_PIXELS, read_header

LOSSLESS = [("PNG", {}), ("BMP", {}), ("PPM", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
LOSSLESS += [("TIFF", {"compression": "tiff_deflate"}), ("WEBP", {"lossless": True})]
LOSSY = [("JPEG", {}), ("JPEG", {"progressive": True}), ("TIFF", {"compression": "jpeg"}), ("WEBP", {})]


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_lossless_formats_keep_every_pixel(kind: str, options: dict[str, object]) -> None:
    np.testing.assert_array_equal(decode(encoded(picture(), kind, **options)), picture())


@pytest.mark.parametrize(("kind", "options"), LOSSY)
def test_lossy_formats_keep_the_colours(kind: str, options: dict[str, object]) -> None:
    difference = np.abs(decode(encoded(picture(), kind, **options)).astype(int) - picture())
    assert difference.mean() < 5


@pytest.mark.parametrize(("kind", "options"), LOSSLESS + LOSSY)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_cut_short_is_refused(kind: str, options: dict[str, object], share: float) -> None:
    data = encoded(picture(), kind, **options)
    with pytest.raises(ImageError, match="damaged"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    data = encoded(picture(), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    found = decode(data)
    (tmp_path / "image").write_bytes(data)
    assert found.shape == (*upright.size[::-1], 3)
    assert peek_shape(tmp_path / "image") == found.shape[:2]
    assert np.abs(found.astype(int) - np.asarray(upright)).max() <= 4


def test_an_exif_directory_that_is_cut_short_is_no_reason_to_refuse_a_photograph() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"
    assert decode(encoded(picture(), "JPEG", exif=exif)).shape == picture().shape


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind: str) -> None:
    grey = picture()[..., 0]
    found = decode(encoded(grey.astype(np.uint16) * 257, kind))
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_twelve_bits_in_sixteen_become_eight_with_a_warning(kind: str) -> None:
    grey = picture()[..., 0].astype(np.uint16)
    data = encoded(grey << 4 | 7, kind)
    pixels, warning = decode_picture(data, read_header(data))
    np.testing.assert_array_equal(pixels[..., 1], grey)
    assert warning == "12 of 16 bits are used: divided by 16"


def test_alpha_is_dropped() -> None:
    rgba = np.dstack([picture(), np.full((96, 128), 7, np.uint8)])
    np.testing.assert_array_equal(decode(encoded(rgba)), picture())


def test_grey_with_alpha_becomes_three_channels() -> None:
    grey = Image.fromarray(picture()).convert("LA")
    np.testing.assert_array_equal(decode(encoded(grey))[..., 2], np.asarray(grey)[..., 0])


def test_palette_is_looked_up() -> None:
    palette = Image.fromarray(picture()).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode(encoded(palette)), np.asarray(palette.convert("RGB")))


def test_bilevel() -> None:
    bits = Image.fromarray(picture()).convert("1")
    np.testing.assert_array_equal(decode(encoded(bits))[..., 0], np.asarray(bits) * 255)


def test_cmyk_jpeg_becomes_rgb() -> None:
    found = decode(encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(found.astype(int) - picture()).mean() < 6


def test_float_samples_are_refused_in_words() -> None:
    with pytest.raises(ImageError, match="32 bits"):
        decode(encoded(picture()[..., 0].astype(np.float32), "TIFF"))


@pytest.mark.parametrize("data", [b"hello, I am a text", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<svg/>", b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="not an image"):
        decode(data)


def test_what_is_not_on_the_list_is_refused_though_pillow_could_read_it() -> None:
    with pytest.raises(ImageError, match="known kind"):
        decode(encoded(picture(), "TGA"))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_read_with_a_warning(kind: str) -> None:
    frames = [Image.fromarray(np.full((40, 56, 3), grey, np.uint8)) for grey in (80, 160, 240)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    found = decode_picture(data, read_header(data))
    assert found.warning == "the first of several frames is used"
    assert found.pixels.shape == (40, 56, 3)
    np.testing.assert_allclose(found.pixels, 80, atol=2)


def test_empty_file() -> None:
    with pytest.raises(ImageError, match="empty"):
        decode(b"")


def test_a_bit_flipped_inside_a_png_is_noticed() -> None:
    data = bytearray(encoded(picture()))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(data))


@pytest.mark.parametrize("side", [8200, 60_000, 2**31 - 1])
def test_a_small_file_that_claims_many_pixels_is_refused_before_decoding(side: int) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"\x89PNG\r\n\x1a\n" + chunks + b"\0\0\0\0IEND\xaeB`\x82"
    assert side * side > MAX_PIXELS
    with pytest.raises(ImageError, match="pixels"):
        read_header(data)


@pytest.mark.parametrize("kind", FORMATS)
def test_header_says_kind_and_size(kind: str) -> None:
    assert read_header(encoded(picture(40, 70), kind))[:3] == (kind, 40, 70)


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"]), st.integers(0, 400))
def test_noise_never_raises_anything_but_an_image_error(noise: bytes, kind: str, start: int) -> None:
    data = encoded(picture(16, 16), kind)
    try:
        pixels = decode(data[:start] + noise + data[start + len(noise) :])
    except ImageError:
        return
    assert pixels.ndim == 3
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (0, 7, 128, 254)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mask_of_any_values(values: tuple[int, ...], dtype: type) -> None:
    mask = np.random.default_rng(0).choice(values, (30, 40)).astype(dtype)
    np.testing.assert_array_equal(decode_mask(encoded(mask)), mask > 0)


def test_mask_in_one_colour_channel_counts_and_alpha_does_not() -> None:
    rgba = np.zeros((10, 12, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[2:5, 3:6, 0] = 1
    found = decode_mask(encoded(rgba))
    np.testing.assert_array_equal(found, rgba[..., 0] > 0)
    assert found.sum() == 9


def test_bilevel_mask() -> None:
    mask = picture()[..., 0] > 128
    np.testing.assert_array_equal(decode_mask(encoded(Image.fromarray(mask))), mask)


@pytest.mark.parametrize("pixels", [picture(), picture()[..., 0]])
def test_encode_png_is_read_by_others(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)


@pytest.mark.parametrize("name", ["with space", "Drüse 腺", "line\nbreak", "x" * 251, "quote'\"$;&"])
def test_names_that_break_others(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.png"
    write_atomic(path, encoded(picture()))
    np.testing.assert_array_equal(read_image(path), picture())


def test_missing_file_and_folder_are_image_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="folder"):
        read_image(tmp_path)


def test_metadata_that_is_damaged_does_not_cost_the_image() -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    data = encoded(picture(), "JPEG", exif=exif)
    at = data.index(b"Exif\0\0") + 6
    damaged = data[: at + 8] + b"\xff\xff" + data[at + 10 :]  # entries that the directory does not hold
    assert decode(damaged).shape in {(96, 128, 3), (128, 96, 3)}


@pytest.mark.parametrize("highest", [1, 100, 1023])
def test_a_pgm_with_an_odd_highest_sample_is_refused_not_read_dark(highest: int) -> None:
    with pytest.raises(ImageError, match=f"go up to {highest}, not to 255"):
        decode(b"P5 # by hand\n8 4 # size\n%d\n" % highest + bytes(64))


def test_pbm_and_twelve_bits_of_a_pgm_are_read() -> None:
    assert decode(b"P4 8 2\n\xff\x00")[:, 0, 0].tolist() == [0, 255]
    assert decode(b"P5 2 1 4095 " + bytes([15, 255, 0, 16]))[0, :, 0].tolist() == [255, 1]
