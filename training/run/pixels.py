"""Pixels of many images in one file, read when they are asked for: memory does not grow with their number."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, overload

import numpy as np
import numpy.typing as npt

from alserve.arrays import Grey, UInt8
from alserve.files import open_atomic

Shape = tuple[int, ...]


class PixelFile(Sequence[UInt8]):
    """Arrays of uint8 in one file: their values one after the other, then their shapes, then their number.

    Every access reads the file anew, so that a copy in another process needs the path only.

    Args:
        path: The file, see `PixelFile.write`.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: It is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - 8))
            count = int.from_bytes(file.read(8), "little")
            if size < 8 + 12 * count:
                raise ValueError(f"{path}: is damaged")
            file.seek(size - 8 - 12 * count)
            self._shapes: npt.NDArray[np.int32] = np.frombuffer(file.read(12 * count), "<i4").reshape(count, 3)
        self._ends = np.cumsum(np.maximum(self._shapes, 1).astype(np.int64).prod(axis=1))
        if size != (int(self._ends[-1]) if count else 0) + 12 * count + 8 or (self._shapes[:, :2] < 1).any():
            raise ValueError(f"{path}: is damaged")

    @classmethod
    def write(cls, path: Path, arrays: Iterable[UInt8]) -> Self:
        """Write arrays as they come; the file is whole or not there.

        Args:
            path: Where the file is to be.
            arrays: uint8 [height, width] or [height, width, channels], no side of 0.

        Raises:
            OSError: See `alserve.files.write_atomic`.
        """
        shapes = []
        with open_atomic(path) as file:
            for array in arrays:
                file.write(np.ascontiguousarray(array).data)
                shapes.append((*array.shape, 0)[:3])
            file.write(np.array(shapes, "<i4").tobytes())
            file.write(len(shapes).to_bytes(8, "little"))
        return cls(path)

    def __len__(self) -> int:
        return len(self._shapes)

    @overload
    def __getitem__(self, index: int) -> UInt8: ...

    @overload
    def __getitem__(self, index: slice) -> list[UInt8]: ...

    def __getitem__(self, index: int | slice) -> UInt8 | list[UInt8]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        shape = self.shape(place)
        size = int(np.prod(shape))
        values: UInt8 = np.fromfile(self.path, np.uint8, size, offset=int(self._ends[place]) - size)
        return values.reshape(shape)

    def shape(self, index: int) -> Shape:
        """Return the shape of one array, which is not read."""
        return tuple(int(side) for side in self._shapes[index] if side)


class MaskFile(Mapping[int, Grey]):
    """Masks of some images, by image, in a file.

    Args:
        images: The images, in the order of their masks.
        masks: The masks: uint8 [height, width].

    Raises:
        ValueError: There are not as many masks as images.
    """

    def __init__(self, images: Sequence[int], masks: PixelFile) -> None:
        if len(images) != len(masks):
            raise ValueError(f"{masks.path}: {len(masks)} masks of {len(images)} images")
        self.masks = masks
        self._places = {image: place for place, image in enumerate(images)}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __getitem__(self, image: int) -> Grey:
        return self.masks[self._places[image]]

    def __contains__(self, image: object) -> bool:
        return image in self._places

    def shape(self, image: int) -> Shape:
        """Return the shape of one mask, which is not read."""
        return self.masks.shape(self._places[image])
