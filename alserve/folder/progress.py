"""How far a folder run is: in images, or in tiles where some of a few images are cut into many."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

from alserve.folder.manifest import ManifestRow
from alserve.folder.planned import Many, PlannedImage
from alserve.modelfile import ModelSpec
from alserve.terminal import progress
from alserve.tiling import Tiling

FEW = 1000
"""Images whose headers are read before the run, to know the number of their tiles; where there are more, images are
counted."""


class Progress:
    """The number of images, or of tiles, that are done.

    Args:
        tiles: Number of tiles by name of image; without those of one tile.
        show: Called with the number that is done.
        total: The number that there is to do.
    """

    def __init__(self, tiles: dict[str, int], show: Callable[[int], None], total: int) -> None:
        self._tiles, self._show, self._total = tiles, show, total
        self._done = 0
        self._lock = Lock()

    def count(self, done: int) -> None:
        """Add to the number; may be called from any thread."""
        with self._lock:
            self._done = min(self._done + done, self._total)
            self._show(self._done)

    def finish(self, row: ManifestRow) -> None:
        """Count an image that is finished, unless its tiles have been counted."""
        tiles = self._tiles.get(row["name"], 1)
        if tiles == 1 or row["error"]:
            self.count(tiles)

    def counted(self, tiling: Tiling | None) -> Tiling | None:
        """Return a tiling that counts its tiles here, where tiles are counted."""
        return replace(tiling, on_tiles=self.count) if tiling and self._tiles else tiling


@contextmanager
def show_progress(
    images: Many[PlannedImage], tiling: Tiling | None, spec: ModelSpec, max_pixels: int
) -> Iterator[Progress]:
    """Show how far a run is, see `alserve.terminal.progress`.

    Args:
        images: What is to be done.
        tiling: How large images are cut.
        spec: The model.
        max_pixels: A larger image fails.
    """
    tiles = {} if tiling is None or len(images) > FEW else _count_tiles(images, tiling, spec, max_pixels)
    total = len(images) + sum(tiles.values()) - len(tiles)
    with progress(total, unit="tiles" if tiles else "images") as show:
        yield Progress(tiles, show, total)


def _count_tiles(images: Iterable[PlannedImage], tiling: Tiling, spec: ModelSpec, max_pixels: int) -> dict[str, int]:
    tiles: dict[str, int] = {}
    for image in images:
        shape = image.peek_shape()
        if shape and shape[0] * shape[1] <= max_pixels and tiling.applies(*shape):
            tiles[image.name] = tiling.count(*shape, spec)
    return tiles
