"""The images as the page shows them: each as a whole, small, and a large one in tiles of several resolutions."""

from threading import Lock

from alserve.arrays import Image
from alserve.errors import OptionError
from alserve.geometry import resize
from alserve.images.codec import encode_jpeg, read_image
from training.annotate.browser.drawing import Drawing

SIDE = 1024
"""Side of a tile, and the longest side of a whole image that is sent, in pixels; `picture.js` has the same."""

THUMBNAIL_SIDE = 160
"""In pixels."""

MOST_LEVELS = 24
"""From here on, every image is one pixel."""


class Pictures:
    """Makes JPEGs of images. The image that was opened last is kept decoded: its tiles are cut from it."""

    def __init__(self) -> None:
        self._decoding = Lock()
        """One image at a time: a large one takes much memory."""
        self._kept: tuple[str, Image] | None = None

    def forget(self) -> None:
        """Free the memory of the image that is kept."""
        with self._decoding:
            self._kept = None

    def whole(self, drawing: Drawing) -> bytes:
        """Return an image as a run reads it, whatever kind of file it is, at most `SIDE` pixels long.

        Raises:
            ImageError: It cannot be read; nor by the other functions.
        """
        return encode_jpeg(_shrunk(self._open(drawing), SIDE))

    def tile(self, drawing: Drawing, level: int, column: int, row: int) -> bytes:
        """Return a square of an image.

        Args:
            drawing: The image.
            level: How often its resolution is halved: the tile shows `SIDE` * 2 ** level pixels of the image a side,
                fewer at its right and lower end.
            column: Which tile from the left.
            row: Which from the top.

        Raises:
            OptionError: The image has no such tile.
        """
        height, width = drawing.shape
        level = min(level, MOST_LEVELS)
        side = SIDE << level
        top, left = row * side, column * side
        if top >= height or left >= width:
            raise OptionError(f"an image of {width} x {height} pixels has no tile {level}/{column}/{row}")
        part = self._open(drawing)[top : top + side, left : left + side]
        return encode_jpeg(resize(part, (-(-part.shape[0] >> level) or 1, -(-part.shape[1] >> level) or 1)))

    def thumbnail(self, drawing: Drawing) -> bytes:
        """Return an image at most `THUMBNAIL_SIDE` pixels long."""
        return encode_jpeg(_shrunk(self._open(drawing, keep=False), THUMBNAIL_SIDE))

    def _open(self, drawing: Drawing, *, keep: bool = True) -> Image:
        kept = self._kept  # looked at first without the lock: a tile does not wait while another image is decoded
        if kept and kept[0] == drawing.key:
            return kept[1]
        with self._decoding:
            if self._kept and self._kept[0] == drawing.key:  # decoded while this waited
                return self._kept[1]
            if keep:
                self._kept = None  # its memory, before more is taken
            image = read_image(drawing.image)
            if keep:
                self._kept = (drawing.key, image)
            return image


def _shrunk(image: Image, side: int) -> Image:
    scale = min(1.0, side / max(image.shape[:2]))
    return resize(image, (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))))
