"""Objects of masks: their outlines, read by Shapely, and their measures."""

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import shapely
from annotations import drawn_shapes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shapely.geometry import Polygon

from alserve import objects
from alserve.objects import MaskObject, find_objects, means_and_maxima

Mask = npt.NDArray[np.bool_]

NOISE = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


def polygon(item: MaskObject) -> Polygon:
    return Polygon(item.outline.outer, item.outline.holes)


def filled(mask: Mask) -> Mask:
    """The pixels whose middles lie in a polygon."""
    rows, columns = np.indices(mask.shape) + 0.5
    found = np.zeros(mask.shape, np.bool_)
    for item in find_objects(mask):
        found |= shapely.contains_xy(polygon(item), columns, rows)
    return found


@given(NOISE | drawn_shapes())
def test_polygons_filled_again_are_the_mask(mask: Mask) -> None:
    np.testing.assert_array_equal(filled(mask), mask)


@given(NOISE | drawn_shapes())
def test_polygons_are_valid_do_not_overlap_and_have_the_area_of_their_pixels(mask: Mask) -> None:
    polygons = [polygon(item) for item in find_objects(mask)]
    assert all(each.is_valid for each in polygons)
    assert shapely.union_all(polygons).area == pytest.approx(sum(each.area for each in polygons))
    for item, each in zip(find_objects(mask), polygons, strict=True):
        corners = len(item.outline.outer) + sum(map(len, item.outline.holes))
        assert item.area <= each.area <= item.area + corners / 8  # what an inward corner, that is cut, adds
        left, top, width, height = item.box
        assert each.bounds == (left, top, left + width, top + height)


@given(NOISE | drawn_shapes())
def test_objects_are_the_connected_parts(mask: Mask) -> None:
    whole = np.zeros(mask.shape, np.int64)
    for place, item in enumerate(find_objects(mask), start=1):
        assert item.number == place
        left, top, width, height = item.box
        part = whole[top : top + height, left : left + width]
        assert not part[item.mask].any()
        part[item.mask] = place
    np.testing.assert_array_equal(whole > 0, mask)
    assert whole.max(initial=0) == cv2.connectedComponents(mask.astype(np.uint8))[0] - 1


@given(NOISE | drawn_shapes(), st.sampled_from([0.0, 3.0]), st.integers(1, 200))
def test_measures_are_those_of_the_pixels(mask: Mask, split_touching: float, block: int) -> None:
    values = np.random.default_rng(0).random(mask.shape, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "_BLOCK", block)  # so that several are needed
        patch.setattr(objects, "_AT_ONCE", 2)
        items = list(find_objects(mask, split_touching))
        measured = list(means_and_maxima(items, values))
    for item, (mean, most) in zip(items, measured, strict=True):
        left, top, width, height = item.box
        rows, columns = np.nonzero(item.mask)
        assert item.mask.shape == (rows.max() + 1, columns.max() + 1) == (height, width)
        assert item.mask[0].any()
        assert item.mask[:, 0].any()
        assert item.area == len(rows)
        assert item.centroid == pytest.approx((left + columns.mean() + 0.5, top + rows.mean() + 0.5))
        own = values[top : top + height, left : left + width][item.mask]
        assert (mean, most) == pytest.approx((own.mean(dtype=np.float64), own.max()), rel=1e-6)
        edges, _ = cv2.findContours(item.mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        assert item.perimeter == pytest.approx(sum(cv2.arcLength(edge, closed=True) for edge in edges))
        assert item.solidity == pytest.approx(item.area / polygon(item).convex_hull.area)
        reaches = left == 0, top == 0, left + width == mask.shape[1], top + height == mask.shape[0]
        assert item.touches_border == any(reaches)


def test_measures_of_a_disc() -> None:
    mask = np.zeros((120, 140), np.uint8)
    cv2.circle(mask, (70, 50), 40, 1, -1)
    (disc,) = find_objects(mask.astype(np.bool_))
    assert disc.centroid == (70.5, 50.5)
    assert disc.box == (30, 10, 81, 81)
    assert disc.area == pytest.approx(math.pi * 40.5**2, rel=0.04)
    assert disc.equivalent_diameter == pytest.approx(81, rel=0.02)
    assert disc.perimeter == pytest.approx(2 * math.pi * 40, rel=0.07)
    assert disc.solidity > 0.97
    assert not disc.touches_border


def test_measures_of_a_frame_at_the_border() -> None:
    mask = np.zeros((10, 12), np.bool_)
    mask[2:9, 5:] = True
    mask[4:7, 7:10] = False
    (frame,) = find_objects(mask)
    assert (frame.area, frame.box, frame.touches_border) == (40, (5, 2, 7, 7), True)
    assert frame.centroid == (8.5, 5.5)
    assert frame.solidity == pytest.approx(40 / 49)
    assert len(frame.outline.holes) == 1
    assert frame.perimeter == pytest.approx(4 * 6 + 4 * 2 + 4 * 2**0.5)  # outside; inside, askew at the corners
    assert list(means_and_maxima([frame], np.where(mask, 0.75, 1).astype(np.float32))) == [(0.75, 0.75)]


def test_one_pixel_is_a_square() -> None:
    mask = np.zeros((5, 5), np.bool_)
    mask[3, 1] = True
    (dot,) = find_objects(mask)
    assert polygon(dot).equals(shapely.box(1, 3, 2, 4))
    assert (dot.perimeter, dot.solidity) == (0, 1)


def test_an_empty_mask_has_none() -> None:
    assert list(find_objects(np.zeros((4, 4), np.bool_))) == []
