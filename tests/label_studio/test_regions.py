"""Masks as Label Studio's regions: the brush is exact, polygons are near."""

import numpy as np
from annotations import blob
from shapely import Polygon

from alserve.label_studio.brush import decode_brush
from alserve.label_studio.config import Control
from alserve.label_studio.regions import choice_region, mask_regions
from training.annotate.formats.coco import decode_regions

BRUSH = Control("BrushLabels", "tag", "image", "image", ("foreground",))
POLYGONS = Control("PolygonLabels", "outline", "image", "image", ("foreground",))
CHOICES = Control("Choices", "class", "image", "image", ("a", "b"))


def test_a_mask_becomes_a_brush_region() -> None:
    mask = blob(40, 60)
    (region,) = mask_regions(BRUSH, "foreground", mask)
    assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "tag", "image")
    assert (region["original_height"], region["original_width"]) == (40, 60)
    np.testing.assert_array_equal(decode_brush(bytes(region["value"]["rle"]), (40, 60)), mask)


def test_a_mask_becomes_polygons() -> None:
    rows, columns = np.mgrid[:80, :120]
    mask = ((rows - 40) ** 2 + (columns - 30) ** 2 < 25**2) | ((rows - 40) ** 2 + (columns - 90) ** 2 < 20**2)
    mask[0, 0] = True
    regions = mask_regions(POLYGONS, "foreground", mask)
    assert len({region["id"] for region in regions}) == 3
    corners = [np.array(region["value"]["points"]) * (1.2, 0.8) for region in regions]
    assert all(Polygon(each).is_valid and len(each) < 40 for each in corners)
    found = decode_regions([[each.ravel().tolist()] for each in corners], (80, 120))
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.97


def test_nothing_is_no_region() -> None:
    assert mask_regions(BRUSH, "foreground", np.zeros((4, 5), bool)) == []
    assert mask_regions(POLYGONS, "foreground", np.zeros((4, 5), bool)) == []


def test_a_choice() -> None:
    region = choice_region(CHOICES, "b", (40, 60))
    assert (region["type"], region["value"], region["from_name"]) == ("choices", {"choices": ["b"]}, "class")
