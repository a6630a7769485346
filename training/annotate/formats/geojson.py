"""GeoJSON, as QuPath and our own output `polygons` write it: a file for each image, in pixels, found by its name.

What lies within another shape counts over it, as in QuPath's hierarchy: smaller shapes are painted over larger ones.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from alserve.arrays import Float64
from alserve.errors import DataError
from alserve.images.header import SUFFIXES
from alserve.terminal import say
from training.annotate.canvas import Canvas, checked_ring
from training.annotate.fields import Fields, checked_shape, first_fault
from training.annotate.formats import FORMATS, Annotation, Format, Source

SUFFIX = ".geojson"

_WITHOUT_AREA = frozenset({"Point", "MultiPoint", "LineString", "MultiLineString"})
"""Counted points and rulers, which are passed over."""

Polygon = list[Float64]
"""The outer ring and those of the holes: each [corners, 2], x and y in pixels."""


class _Geometry(Fields):
    type: str
    coordinates: Any = None


class _Feature(Fields):
    geometry: _Geometry
    properties: dict[str, Any] | None = None

    @property
    def label(self) -> str:
        """The name of its class; empty where it has none."""
        classification = (self.properties or {}).get("classification")
        return str(classification.get("name")) if isinstance(classification, dict) else ""

    def polygons(self, shape: tuple[int, int]) -> list[Polygon]:
        """Return the polygons of an image of this (height, width)."""
        kind, places = self.geometry.type, self.geometry.coordinates
        if kind in _WITHOUT_AREA:
            return []
        if kind not in {"Polygon", "MultiPolygon"} or not isinstance(places, list):
            raise ValueError(f"holds a {kind[:40]} that cannot be read; draw a Polygon or MultiPolygon")
        found = []
        for rings in [places] if kind == "Polygon" else places:
            if not rings or not isinstance(rings, list):
                raise ValueError("a polygon without corners")
            found.append([checked_ring(np.asarray(ring, np.float64), shape) for ring in rings])
        return found


_FEATURES = TypeAdapter(list[_Feature])


def _features(content: Any) -> Any:  # noqa: ANN401
    """Return the list of features of a file's content."""
    if isinstance(content, dict):
        return content.get("features", [content])
    return content


def _area(polygon: Polygon) -> float:
    outer = polygon[0]
    x, y = (outer - outer[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _files(root: Path) -> list[Path]:
    """Return the GeoJSON files below a folder; hidden ones are passed over."""
    return sorted(path for path in root.rglob(f"*{SUFFIX}") if not path.name.startswith("."))


def _read_file(path: Path, name: str, source: Source) -> Annotation | None:
    """Read one file; None where it holds no shape."""
    if source.shape_of is None:
        raise DataError(f"{source.path}: GeoJSON does not tell how large an image is; name the data set with --data")
    size = source.shape_of(name)
    if size is None:
        return Annotation(name, None)  # of an image that nobody asks for
    content = Source(path).content
    if content is None:
        raise ValueError(f"{name}: is no JSON file, or ends too early")
    canvas = Canvas(checked_shape(*size))
    try:
        features = _FEATURES.validate_python(_features(content))
        shapes = [(polygon, each.label) for each in features for polygon in each.polygons(canvas.mask.shape)]
        for polygon, label in sorted(shapes, key=lambda shape: _area(shape[0]), reverse=True):
            canvas.fill(polygon, label)
    except ValidationError as error:
        raise ValueError(f"{name}: {first_fault(error)}") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None
    if not shapes:
        say(f"{name}: holds no shape, left out")
        return None
    return Annotation(name, canvas.mask)


def read_geojson(source: Source) -> Iterator[Annotation]:
    """Read GeoJSON: the shapes of each image, painted from the largest to the smallest."""
    root = source.path
    for path in _files(root) if root.is_dir() else [root]:
        name = path.relative_to(root if root.is_dir() else root.parent).as_posix()
        inner = name.removesuffix(SUFFIX)
        whole = Path(inner).suffix.lower() in SUFFIXES  # a.jpg.geojson is of a.jpg, a.geojson of a
        found = _read_file(path, inner if whole else name, source)
        if found is not None:
            yield found


def _recognize(source: Source) -> bool:
    if source.path.is_dir():  # before the pictures, which may be the images that it belongs to
        return bool(_files(source.path))
    features = _features(source.content)
    empty = source.path.suffix.lower() == SUFFIX
    return (
        isinstance(features, list)
        and (bool(features) or empty)
        and all(isinstance(each, dict) and "geometry" in each for each in features)
    )


FORMATS.add("geojson")(
    Format(description="GeoJSON files, one an image, as QuPath exports them", recognize=_recognize, read=read_geojson)
)
