"""The objects of the mask as polygons: GeoJSON (RFC 7946) in pixels, with what QuPath wants to know of them."""

import json
from typing import Any

from alserve.objects import MaskObject, Ring
from alserve.outputs import OUTPUTS, Case, Output


def feature(item: MaskObject, label: str) -> dict[str, Any]:
    """Return an object as a GeoJSON feature: a polygon, its holes after its outer edge.

    Args:
        item: The object.
        label: The class of the image.

    Returns:
        What JSON knows; coordinates are x and y in pixels, and the last point of a ring is its first.
    """
    outline = item.outline
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [_closed(ring) for ring in (outline.outer, *outline.holes)]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": label},
            "object": item.number,
            "area": item.area,
        },
    }


def _closed(ring: Ring) -> list[list[float]]:
    points: list[list[float]] = ring.tolist()
    return [*points, points[0]]


def _encode(case: Case) -> bytes:
    found = [feature(item, case.prediction.label) for item in case.objects()]
    return json.dumps({"type": "FeatureCollection", "features": found}, separators=(",", ":")).encode()


OUTPUTS.add("polygons")(
    Output(
        "the objects of the mask as polygons with holes, in pixels: GeoJSON, as QuPath reads it",
        "polygons",
        _encode,
        ".geojson",
        "application/geo+json",
    )
)
