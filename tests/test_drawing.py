"""Pictures: what they may change, and what they must show."""

import numpy as np
import pytest
from pictures import picture

from alserve import Predictor
from alserve.drawing import PREDICTED, TINT, TRUE, contact_sheet, heat_map, overlay, panels

HEIGHT, WIDTH = 120, 160


@pytest.fixture
def disc() -> np.ndarray:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return (rows - 60) ** 2 + (columns - 80) ** 2 < 40**2


def test_overlay_of_nothing_is_the_image() -> None:
    image = picture(HEIGHT, WIDTH)
    before = image.copy()
    np.testing.assert_array_equal(overlay(image, np.zeros((HEIGHT, WIDTH), bool)), before)


def test_overlay_tints_inside_outlines_the_edge_and_leaves_the_rest(disc: np.ndarray) -> None:
    image = picture(HEIGHT, WIDTH)
    before = image.copy()
    found = overlay(image, disc)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(found[:, :30], image[:, :30])
    expected = image[60, 80] * (1 - TINT) + np.array(PREDICTED) * TINT
    np.testing.assert_allclose(found[60, 80], expected, atol=1)
    assert np.abs(found[19:23, 80].astype(int) - PREDICTED).sum(axis=1).min() < 100  # the top of the disc


def test_overlay_draws_holes(disc: np.ndarray) -> None:
    disc[50:70, 70:90] = False
    found = overlay(np.full((HEIGHT, WIDTH, 3), 128, np.uint8), disc)
    assert (found[60, 80] == 128).all()
    assert np.abs(found[48:52, 80].astype(int) - PREDICTED).sum(axis=1).min() < 100


def test_overlay_does_not_outline_the_edge_of_the_image() -> None:
    grey = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    found = overlay(grey, np.ones((HEIGHT, WIDTH), bool))
    assert (found == found[0, 0]).all()


def test_outline_is_wider_on_larger_images() -> None:
    def outline(scale: int) -> int:
        mask = np.zeros((300 * scale, 300 * scale), bool)
        mask[:, 150 * scale :] = True
        found = overlay(np.zeros((*mask.shape, 3), np.uint8), mask)
        return int((found[150 * scale, :, 0] > 200).sum())

    assert outline(4) > 2 * outline(1) > 0


def test_heat_rises_with_the_activation() -> None:
    ramp = np.tile(np.linspace(0, 1, WIDTH, dtype=np.float32), (HEIGHT, 1))
    found = heat_map(np.full((HEIGHT, WIDTH, 3), 100, np.uint8), ramp)
    lightness = found[0].astype(float) @ [0.299, 0.587, 0.114]
    assert found.shape == (HEIGHT, WIDTH, 3)
    assert (np.diff(lightness) > -1.5).all()
    assert lightness[-1] - lightness[0] > 100


def test_heat_map_shows_the_image_underneath() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, 80:] = 255
    found = heat_map(image, np.full((HEIGHT, WIDTH), 0.5, np.float32))
    assert (found[0, 120].astype(int) - found[0, 40] > 50).all()


def test_panels_show_the_truth_where_there_is_one(predictor: Predictor, disc: np.ndarray) -> None:
    image = picture(HEIGHT, WIDTH)
    (prediction,) = predictor.predict([image])
    assert list(panels(image, prediction.cam(), prediction.mask())) == ["Image", "Class activation", "Mask"]
    pictures = panels(image, prediction.cam(), prediction.mask(), disc)
    assert list(pictures) == ["Image", "Class activation", "Mask", "Truth"]
    assert {(shown.shape, shown.dtype.name) for shown in pictures.values()} == {(image.shape, "uint8")}
    np.testing.assert_array_equal(pictures["Truth"], overlay(image, disc, colour=TRUE))


def test_contact_sheet_holds_every_picture_and_its_words() -> None:
    red, green, blue = (np.full((50, 100, 3), shade, np.uint8) for shade in ([250, 0, 0], [0, 250, 0], [0, 0, 250]))
    rows = [("first", {"A": red, "B": green}), ("second, größer 腺", {"A": blue.transpose(1, 0, 2)})]
    sheet = contact_sheet(rows, width=200)
    for shade, area in ((red, 200 * 100), (green, 200 * 100), (blue, 200 * 400)):
        assert (sheet == shade[0, 0]).all(axis=2).sum() == area
    silent = contact_sheet([("", row) for _, row in rows], width=200)
    assert sheet.shape == silent.shape
    assert (sheet != silent).any()
