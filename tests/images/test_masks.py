"""Masks as programs save them: soft edges are cut at half of the largest level, labels count from 1 on."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded
from PIL import Image

from alserve.images.codec import decode_levels, decode_mask, encode_png, foreground, has_soft_edges

SIDE = 160


def circle(x: float, y: float, radius: float, largest: int = 255) -> np.ndarray:
    """A circle with smoothed outline, uint8 [160, 160]; OpenCV counts in sixteenths of a pixel."""
    centre = (round(16 * x), round(16 * y))
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    return cv2.circle(canvas, centre, round(16 * radius), largest, -1, cv2.LINE_AA, 4).astype(np.uint8)


@settings(deadline=None)
@given(st.floats(60, 100), st.floats(60, 100), st.floats(15, 50), st.integers(200, 255))
def test_a_smoothed_circle_has_the_area_of_the_circle(x: float, y: float, radius: float, largest: int) -> None:
    drawn = circle(x, y, radius, largest)
    area = np.pi * (radius + 0.5) ** 2  # OpenCV draws the outline on the circle, one pixel wide
    for levels in (drawn, drawn.astype(np.uint16) * 257, cv2.GaussianBlur(drawn, (0, 0), 2).astype(np.uint8)):
        assert has_soft_edges(levels)
        assert decode_mask(encode_png(levels)).sum() == pytest.approx(area, rel=0.04)


@settings(deadline=None)
@given(st.integers(40, 98), st.floats(5, 50))
def test_what_a_jpeg_leaves_around_edges_is_no_foreground(quality: int, radius: float) -> None:
    truth = circle(80, 80, radius) >= 128
    data = encoded(truth.astype(np.uint8) * 255, "JPEG", quality=quality)
    assert (decode_mask(data) != truth).mean() < 0.001


def test_a_scaled_mask_keeps_its_area() -> None:
    truth = (circle(80, 80, 30) >= 128).astype(np.uint8) * 255
    for scale, how in ((4, cv2.INTER_LINEAR), (4, cv2.INTER_CUBIC), (0.4, cv2.INTER_AREA)):
        scaled = cv2.resize(truth, None, fx=scale, fy=scale, interpolation=how).astype(np.uint8)
        assert foreground(scaled).sum() == pytest.approx((truth > 0).sum() * scale**2, rel=0.03)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 150), st.integers(2, 30)), min_size=1, max_size=60),
    st.integers(1, 4),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_labels_are_foreground_from_1_on(places: list[tuple[int, int, int]], step: int, kind: type) -> None:
    """Instances are numbered, in rectangles of at least 2 x 2 pixels, by ones or in larger steps."""
    labels = np.zeros((SIDE, SIDE), kind)
    for number, (x, y, side) in enumerate(places, start=1):
        labels[y : y + side, x : x + side] = number * step * (200 if kind is np.uint16 else 1)
    np.testing.assert_array_equal(decode_mask(encode_png(labels)), labels > 0)


def test_classes_of_which_one_has_the_largest_number_are_all_foreground() -> None:
    """As in Pascal VOC, where 255 is the outline."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for number in range(1, 21):
        labels[7 * number : 7 * number + 6, 10:150] = number
        labels[7 * number + 6, 10:150] = 255
    np.testing.assert_array_equal(decode_mask(encode_png(labels)), labels > 0)


def test_palettes_and_colours_are_labels() -> None:
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for number in range(1, 12):
        labels[12 * number : 12 * number + 10, 10:60] = number
    palette = Image.fromarray(labels, "P")
    palette.putpalette([0, 0, 0, *np.random.default_rng(0).integers(1, 255, 3 * 255).tolist()])
    for picture in (palette, palette.convert("RGB")):
        np.testing.assert_array_equal(decode_mask(encoded(picture)), labels > 0)


def test_a_coloured_mask_with_soft_edges_is_cut_at_half() -> None:
    drawn = circle(80, 80, 40)
    red = np.dstack([drawn, drawn // 4, drawn // 9])
    np.testing.assert_array_equal(decode_levels(encoded(red)), drawn)
    np.testing.assert_array_equal(decode_mask(encoded(red)), drawn >= 128)


@pytest.mark.parametrize("colour", [(255, 255, 255), (200, 10, 10), (0, 0, 0)])
def test_a_layer_painted_with_a_soft_brush_is_foreground_from_half_of_its_opacity_on(colour: tuple[int, ...]) -> None:
    opacity = circle(80, 80, 40)
    layer = np.dstack([np.full((SIDE, SIDE, 3), colour, np.uint8), opacity])
    np.testing.assert_array_equal(decode_mask(encoded(layer)), opacity >= 128)


def test_a_faint_layer_is_foreground_wherever_it_was_painted() -> None:
    layer = np.dstack([np.full((SIDE, SIDE, 3), 255, np.uint8), (circle(80, 80, 40) >= 128) * np.uint8(90)])
    np.testing.assert_array_equal(decode_mask(encoded(layer)), layer[..., 3] > 0)


@pytest.mark.parametrize("levels", [np.zeros((5, 7), np.uint8), np.full((1, 9), 255, np.uint8), np.eye(1, 1)])
def test_masks_without_an_edge_have_none(levels: np.ndarray) -> None:
    assert not has_soft_edges(levels.astype(np.uint8))
    np.testing.assert_array_equal(foreground(levels.astype(np.uint8)), levels > 0)
