"""Images larger than a model's view: cut into overlapping tiles, predicted in batches, blended without seams.

Every tile is seen as an image of its own, at the model's working size. Masks and CAMs of neighbouring tiles fade into
each other over their overlap; the scores of an image are pooled from its whole CAMs, as the network does it, so that
tiles without an object do not outvote the one that has it. Tiles start at whole cells of `STRIDE` working pixels, so
that everything blends in place; past its last row and column an image is mirrored.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Self

import cv2
import numpy as np

from alserve.arrays import Float32, UInt8
from alserve.errors import DataError
from alserve.geometry import STRIDE, resize
from alserve.modelfile import ModelSpec, Outputs
from alserve.pooling import scores_of
from alserve.runtime.engine import Engine

AUTO = "auto"

AUTO_FROM = 1.5
"""With automatic tiles, an image is cut when its short side is at least this many times that of the training images."""

CAM_SCALE = 8
"""Pixels, a side, of the blended CAM for each cell of a tile."""


@dataclass(frozen=True)
class Tiling:
    """How images are cut."""

    side: int
    """Side of a tile, in pixels of the image; the network sees it scaled to its working size."""
    overlap: int
    """Pixels that neighbours share, at most half a tile; in effect, the nearest whole cells."""
    automatic: bool = False
    """Leave images alone that are little larger than what the model was trained on."""
    on_tiles: Callable[[int], None] | None = field(default=None, compare=False, repr=False)
    """Called with the number of tiles of each network call, when it is done; from any thread."""

    @classmethod
    def of(cls, tile: str | int, overlap: int | None, spec: ModelSpec) -> Self:
        """Read the options.

        Args:
            tile: "auto", for tiles as large as the training images were, or a side in pixels.
            overlap: In pixels. Default: a quarter of the side.
            spec: The model.

        Raises:
            DataError: They do not fit, or the model does not know how large its training images were.
        """
        automatic = tile == AUTO
        if automatic and spec.training_short_side is None:
            raise DataError("--tile auto: this model does not say how large its training images were; give pixels")
        try:
            side = spec.training_short_side or 0 if automatic else int(tile)
        except ValueError:
            raise DataError(f"--tile '{tile}': give auto, or a number of pixels") from None
        cells = spec.short_side // STRIDE
        if side < cells:
            raise DataError(f"--tile {tile}: a tile has at least {cells} pixels a side")
        overlap = side // 4 if overlap is None else overlap
        if not 0 <= overlap <= side // 2:
            raise DataError(f"--overlap {overlap}: give 0 to {side // 2} pixels, half a tile")
        return cls(side, overlap, automatic)

    def applies(self, height: int, width: int) -> bool:
        """Tell whether an image of this size is cut."""
        if self.automatic:
            return min(height, width) >= AUTO_FROM * self.side
        return max(height, width) > self.side

    def count(self, height: int, width: int, spec: ModelSpec) -> int:
        """Return the number of tiles of an image of this size; 1 if it is not cut."""
        if not self.applies(height, width):
            return 1
        cells = spec.short_side // STRIDE
        return _Axis.along(height, self, cells).count * _Axis.along(width, self, cells).count


@dataclass(frozen=True)
class _Axis:
    """The tiles along rows or columns, measured in cells."""

    cells: int
    """Cells of a tile."""
    step: int
    """Cells from one tile to the next."""
    count: int
    """Tiles."""

    @classmethod
    def along(cls, length: int, tiling: Tiling, cells: int) -> Self:
        step = max(1, round((tiling.side - tiling.overlap) * cells / tiling.side))
        beyond = max(0, length - tiling.side)
        return cls(cells, step, 1 + -(-beyond * cells // (step * tiling.side)))

    def extent(self, unit: int) -> int:
        """Return the length that the tiles cover, in units of which a cell has `unit`."""
        return ((self.count - 1) * self.step + self.cells) * unit

    def weights(self, index: int, unit: int) -> Float32:
        """Return a tile's share at each place along it; the shares of all tiles add up to 1 everywhere."""
        shared = (self.cells - self.step) * unit
        ramp = (np.arange(shared, dtype=np.float32) + 0.5) / max(shared, 1)
        weights = np.ones(self.cells * unit, np.float32)
        if index > 0:
            weights[:shared] = ramp
        if index < self.count - 1:
            weights[len(weights) - shared :] = ramp[::-1]
        return weights


def run_tiled(engine: Engine, image: UInt8, tiling: Tiling, batch: int) -> Outputs:
    """Run a model over the tiles of one image.

    Args:
        engine: The model.
        image: uint8 [height, width, 3], RGB.
        tiling: How to cut it.
        batch: Tiles a network call.

    Returns:
        Outputs of one image, without the batch axis: scores [classes]; cams [classes, h, w], `CAM_SCALE` pixels for
        every cell of a tile; mask [height, width] at the model's working scale.
    """
    height, width = image.shape[:2]
    short_side, cells = engine.spec.short_side, engine.spec.short_side // STRIDE
    rows, columns = _Axis.along(height, tiling, cells), _Axis.along(width, tiling, cells)
    mask = np.zeros((rows.extent(STRIDE), columns.extent(STRIDE)), np.float32)
    cams = np.zeros((len(engine.spec.classes), rows.extent(CAM_SCALE), columns.extent(CAM_SCALE)), np.float32)
    places = list(product(range(rows.count), range(columns.count)))
    for start in range(0, len(places), batch):
        chosen = places[start : start + batch]
        tiles = [_cut(image, tiling.side, rows.step * y, columns.step * x, cells) for y, x in chosen]
        outputs = engine.run(np.stack([resize(tile, (short_side, short_side)) for tile in tiles]))
        for (y, x), tile_cams, tile_mask in zip(chosen, outputs.cams, outputs.mask, strict=True):
            for canvas, tile, unit in (
                (mask, tile_mask, STRIDE),
                (cams, _scaled(tile_cams, cells * CAM_SCALE), CAM_SCALE),
            ):
                top, left = rows.step * y * unit, columns.step * x * unit
                weights = rows.weights(y, unit)[:, None] * columns.weights(x, unit)
                canvas[..., top : top + cells * unit, left : left + cells * unit] += weights * tile
        if tiling.on_tiles:
            tiling.on_tiles(len(chosen))
    share = cells / tiling.side
    cams = cams[:, : max(1, round(height * share * CAM_SCALE)), : max(1, round(width * share * CAM_SCALE))]
    return Outputs(
        scores_of(cams, engine.spec.cam_stride),
        cams,
        mask[: max(1, round(height * share * STRIDE)), : max(1, round(width * share * STRIDE))],
    )


def _cut(image: UInt8, side: int, row: int, column: int, cells: int) -> UInt8:
    """Cut the tile whose first cell this is; what it lacks past the image's edge is mirrored."""
    top, left = round(row * side / cells), round(column * side / cells)
    tile = image[top : top + side, left : left + side]
    below, right = side - tile.shape[0], side - tile.shape[1]
    if below or right:
        tile = cv2.copyMakeBorder(tile, 0, below, 0, right, cv2.BORDER_REFLECT_101).astype(np.uint8, copy=False)
    return tile


def _scaled(cams: Float32, side: int) -> Float32:
    """Enlarge a tile's CAMs [classes, h, w] to this side."""
    return np.stack([resize(cam, (side, side)) for cam in cams])
