"""The objects of the mask as polygons: GeoJSON (RFC 7946) in pixels, with what QuPath wants to know of them."""

import io
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from alserve.arrays import UInt8
from alserve.borders import Points
from alserve.objects import MaskObject, some_at_once
from alserve.outputs import OUTPUTS, Case, Output


def _encode(case: Case) -> bytes:
    return write_list(b'{"type":"FeatureCollection","features":[', features(case.objects, case.prediction.label), b"]}")


def write_list(begin: bytes, items: Iterable[bytes], end: bytes) -> bytes:
    """Return items with commas between them, in one buffer that grows: there may be 100,000 of them."""
    text = io.BytesIO()
    text.write(begin)
    between = b""
    for item in items:
        text.write(between)
        text.write(item)
        between = b","
    text.write(end)
    return text.getvalue()


def features(items: Sequence[MaskObject], label: str) -> Iterator[bytes]:
    """Yield objects as GeoJSON features, in JSON: polygons, holes after their outer edge, rings closed."""
    name = json.dumps(label)
    for some in some_at_once(items):
        rings = ring_texts([ring for item in some for ring in item.rings], "[", "]", closed=True)
        for item in some:
            own = ",".join(f"[{next(rings)}]" for _ in item.rings)
            yield (
                f'{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":[{own}]}},'
                f'"properties":{{"objectType":"annotation","classification":{{"name":{name}}},'
                f'"object":{item.number},"area":{item.area}}}}}'
            ).encode()


def ring_texts(rings: Sequence[Points], before: str = "", after: str = "", *, closed: bool = False) -> Iterator[str]:
    """Yield the points of rings as JSON has them, with commas between them.

    `json` takes ten times as long.

    Args:
        rings: In half pixels; not empty.
        before: What stands before each point.
        after: What stands behind it.
        closed: Whether the last point is to be the first again.
    """
    points = np.concatenate(rings)
    numbers = _numbers(int(points.max()))
    mark, comma, end_mark = (
        np.full((len(numbers), len(text)), list(text.encode()), np.uint8) for text in (before, ",", after)
    )
    x, y = np.hstack([mark, numbers, comma]), np.hstack([numbers, end_mark, comma])
    texts = np.hstack([x.take(points[:, 0], axis=0), y.take(points[:, 1], axis=0)])
    end = 0
    for ring in rings:
        begin, end = end, end + len(ring)
        text = texts[begin:end].tobytes() + (texts[begin].tobytes() if closed else b"")
        yield text.translate(None, b"\0")[:-1].decode()


def _numbers(most: int) -> UInt8:
    """Return 0 to a number of halves as texts of one length, which zero bytes fill up: [numbers, characters]."""
    whole, half = np.divmod(np.arange(most + 1, dtype=np.int32)[:, None], 2)
    powers = 10 ** np.arange(len(str(most // 2)), dtype=np.int32)[::-1]
    digits = np.where((whole >= powers) | (powers == 1), whole // powers % 10 + ord("0"), 0)
    return np.hstack([digits, half * np.frombuffer(b".5", np.uint8)]).astype(np.uint8)


OUTPUTS.add("polygons")(
    Output(
        "the objects of the mask as polygons with holes, in pixels: GeoJSON, as QuPath reads it",
        "polygons",
        _encode,
        ".geojson",
        "application/geo+json",
    )
)
