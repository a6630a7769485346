"""The objects of the mask as polygons: GeoJSON (RFC 7946) in pixels, with what QuPath wants to know of them."""

import json

from alserve.objects import MaskObject, Ring
from alserve.outputs import OUTPUTS, Case, Output


def _encode(case: Case) -> bytes:
    features = ",".join(feature(item, case.prediction.label) for item in case.objects)
    return f'{{"type":"FeatureCollection","features":[{features}]}}'.encode()


def feature(item: MaskObject, label: str) -> str:
    """Return an object as a GeoJSON feature, in JSON: a polygon, its holes after its outer edge, its rings closed."""
    outline = item.outline
    rings = ",".join(f"[{_closed(ring)}]" for ring in (outline.outer, *outline.holes))
    known = {
        "objectType": "annotation",
        "classification": {"name": label},
        "object": item.number,
        "area": item.area,
    }
    properties = json.dumps(known, separators=(",", ":"))
    geometry = f'{{"type":"Polygon","coordinates":[{rings}]}}'
    return f'{{"type":"Feature","geometry":{geometry},"properties":{properties}}}'


def _closed(ring: Ring) -> str:
    numbers = coordinates(ring)
    pairs = iter([*numbers, *numbers[:2]])
    return f"[{'],['.join(map(','.join, zip(pairs, pairs, strict=True)))}]"


MOST_TEXTS = 2**16
"""Numbers whose texts are kept."""


class _Texts(dict[float, str]):
    """Numbers as JSON has them, made when they are first asked for: `json` takes four times as long for as many."""

    def __missing__(self, value: float) -> str:
        if len(self) >= MOST_TEXTS:
            self.clear()
        text = self[value] = str(int(value)) if value.is_integer() else str(value)
        return text


_TEXTS = _Texts()


def coordinates(ring: Ring) -> list[str]:
    """Return x, y, x, y .. of the points of a ring as JSON has them."""
    return [_TEXTS[value] for value in ring.ravel().tolist()]


OUTPUTS.add("polygons")(
    Output(
        "the objects of the mask as polygons with holes, in pixels: GeoJSON, as QuPath reads it",
        "polygons",
        _encode,
        ".geojson",
        "application/geo+json",
    )
)
