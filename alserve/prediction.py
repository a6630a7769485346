"""What the model says of one image: the network's answers at its own working size, and full-size views on demand."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alserve.arrays import Float32, Grey, Image, Mask
from alserve.drawing import contact_sheet, panels
from alserve.drawing import overlay as draw_overlay
from alserve.errors import ImageError, OptionError
from alserve.files import write_atomic
from alserve.geometry import enlarged, resize
from alserve.images.codec import encode_png, to_grey
from alserve.images.inputs import ImageInput, path_of, pixels_of, stated_um_per_pixel_of
from alserve.modelfile import ModelSpec
from alserve.outputs import OUTPUTS, Case, output_of
from alserve.outputs.rle import encode_rle
from alserve.paths import printable
from alserve.postprocessing import STATED, UNCHANGED, PostProcessing
from alserve.registry import suggest

_THUMBNAIL_SIDE, _THUMBNAIL_LEAST = 320, 160
"""Pixels of the longer side of the pictures that a notebook shows, and of their columns at least."""


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What the model says of one image; `mask`, `probability`, `cam` and `overlay` have the image's own size."""

    spec: ModelSpec
    height: int
    """Rows of the image, in pixels."""
    width: int
    """Columns of the image, in pixels."""
    class_scores: Float32
    """[classes], softmax, 0 to 1, in the order of `spec.classes`."""
    working_probability: Float32
    """[working height, working width], foreground probability at the network's own size."""
    working_cams: Float32
    """[classes, h, w], class activations at the encoder's last stride."""
    source: ImageInput | None = None
    """The image as it was passed in, for what is drawn on it; None where it was not kept."""

    @property
    def path(self) -> Path | None:
        """The image's file; None of an image that was passed as bytes or pixels."""
        return path_of(self.source)

    @property
    def label(self) -> str:
        """The class with the highest score."""
        return self.spec.classes[int(self.class_scores.argmax())]

    @property
    def scores(self) -> dict[str, float]:
        """Score by class name, 0 to 1, sum 1."""
        return {name: float(score) for name, score in zip(self.spec.classes, self.class_scores, strict=True)}

    @property
    def threshold(self) -> float:
        """Probability, 0 to 1, above which the model takes a pixel for foreground."""
        return self.spec.threshold

    def probability(self) -> Float32:
        """Return the foreground probability at the image's own size: float32 [height, width], 0 to 1."""
        return self._full_size(self.working_probability, lambda band: band, np.float32)

    def mask(
        self, threshold: float | None = None, *, smooth: float = 0.0, fill_holes: bool = False, min_area: int = 0
    ) -> Mask:
        """Return the foreground at the image's own size: bool [height, width].

        Args:
            threshold: Probability, 0 to 1, above which a pixel is foreground. Default: the model's own.
            smooth: See `alserve.PostProcessing`, as the following.
            fill_holes: Fill holes.
            min_area: Remove objects of fewer pixels.

        Raises:
            OptionError: A value is out of range.
        """
        post = PostProcessing(threshold, smooth, fill_holes, min_area)
        above = self.threshold if threshold is None else threshold
        return post.finish(self._full_size(self.working_probability, lambda band: band > above, np.bool_))

    def cam(self, label: str | None = None) -> Float32:
        """Return a class activation map at the image's own size: float32 [height, width], 0 to 1.

        The scale is the model's `cam_range`, the same for all images, so that maps can be compared.

        Args:
            label: The class. Default: the predicted one.

        Raises:
            OptionError: The model has no such class.
        """
        return self._full_size(self._scaled_cam(label), lambda band: band, np.float32)

    def cam_grey(self, label: str | None = None) -> Grey:
        """Return a class activation map as grey levels: uint8 [height, width], see `cam`."""
        return self._full_size(self._scaled_cam(label), to_grey, np.uint8)

    def overlay(self) -> Image:
        """Return the image with the outline of its mask, see `alserve.drawing.overlay`.

        Raises:
            ImageError: The image was not kept, or its file cannot be read any more, or is another one by now.
        """
        return draw_overlay(self._image(), self.mask())

    def save(self, path: str | Path, output: str | None = None, *, post: PostProcessing = UNCHANGED) -> Path:
        """Write one output to a file, which is whole or not there.

        Args:
            path: The file. Its folder is made.
            output: Name of an output, see `alserve.outputs`. Default: the one that the file's name is or ends with, as
                in "overlay.png" and "tissue-overlay.png"; else that of its suffix, see `alserve.outputs.output_of`.
            post: What is done to the mask.

        Returns:
            The path.

        Raises:
            OptionError: There is no such output, or it is written with another suffix.
            ImageError: The output needs the image, see `overlay`.
            OSError: The file cannot be written.

        Example:
            >>> prediction.save("results/tissue.png", output="overlay")
        """
        path = Path(path)
        name = output or _output_for(path)
        chosen = OUTPUTS.find(name)
        if path.suffix.lower() != chosen.suffix:
            raise OptionError(f"{path}: output '{name}' is written as {chosen.suffix}; give the file that suffix")
        image = self._image() if chosen.draws_on_image else np.zeros((1, 1, 3), np.uint8)
        name = "image" if self.path is None else self.path.as_posix()
        stated = stated_um_per_pixel_of(self.source) if post.um_per_pixel == STATED else None
        case = Case(image, self, post, name, stated)
        write_atomic(path, chosen.encode(case))
        return path

    def to_dict(self, *, mask: bool = False) -> dict[str, Any]:
        """Return what was found in types that JSON knows.

        Args:
            mask: Include the mask, as COCO's compressed run lengths.

        Returns:
            `path` (None of an image that has none), `label`, `scores` by class, `height` and `width` in pixels,
            `threshold`, `foreground` (share of the image, 0 to 1) and, where asked for, `mask`.
        """
        found = self.mask()
        return {
            "path": None if self.path is None else self.path.as_posix(),
            "label": self.label,
            "scores": self.scores,
            "height": self.height,
            "width": self.width,
            "threshold": self.spec.threshold,
            "foreground": float(found.mean()),
            **({"mask": encode_rle(found)} if mask else {}),
        }

    def __repr__(self) -> str:
        share = float((self.working_probability > self.spec.threshold).mean())
        return f"<Prediction {self._caption()}, {self.width} x {self.height} pixels, {share:.0%} foreground>"

    def _repr_png_(self) -> bytes | None:
        """Return what a notebook shows: image, class activation map and mask, small; None where the image is gone."""
        try:
            image = self._image()
        except ImageError:
            return None
        scale = min(1.0, _THUMBNAIL_SIDE / max(self.height, self.width))
        height, width = max(1, round(self.height * scale)), max(1, round(self.width * scale))
        small = replace(self, height=height, width=width)
        pictures = panels(resize(image, (height, width)), small.cam(), small.mask())
        return encode_png(contact_sheet([(self._caption(), pictures)], width=max(width, _THUMBNAIL_LEAST)))

    def _caption(self) -> str:
        name = "" if self.path is None else f"{printable(self.path.name)}: "
        return f"{name}{self.label} {self.class_scores.max():.2f}"

    def _image(self) -> Image:
        """Return the image: uint8 [height, width, 3], RGB."""
        if self.source is None:
            raise ImageError("this prediction was made without keeping its image; draw with alserve.drawing.overlay")
        image = pixels_of(self.source)
        if image.shape[:2] != (self.height, self.width):
            raise ImageError(f"{self.path}: is another image than the one that was predicted; predict it again")
        return image

    def _scaled_cam(self, label: str | None) -> Float32:
        name = self.label if label is None else label
        if name not in self.spec.classes:
            raise OptionError(f"unknown class '{printable(str(name))[:40]}'; {suggest(name, self.spec.classes)}")
        low, high = self.spec.cam_range
        scaled: Float32 = np.clip((self.working_cams[self.spec.classes.index(name)] - low) / ((high - low) or 1), 0, 1)
        return scaled

    def _full_size(self, array: Float32, finish: Callable[[Any], Any], dtype: type) -> npt.NDArray[Any]:
        """Bring a map to the image's own size, each band of it finished before the next is made."""
        bands = ((top, finish(band)) for top, band in enlarged(array, (self.height, self.width)))
        first: npt.NDArray[Any]
        _, first = next(bands)
        if len(first) == self.height and first is not array:
            return first  # the only one, and nobody else's
        whole: npt.NDArray[Any] = np.empty((self.height, self.width), dtype)
        for top, band in chain([(0, first)], bands):
            whole[top : top + len(band)] = band
        return whole


@dataclass(frozen=True, eq=False)
class Failure:
    """An image that could not be used, in the place of its prediction."""

    path: Path | None
    """The image's file; None of an image that was passed as bytes or pixels."""
    index: int
    """Its place among the images, from 0."""
    error: ImageError
    """What is wrong with it; the message names it."""


def _output_for(path: Path) -> str:
    """Return the output that a file's name asks for."""
    words = f"-{path.stem.replace('_', '-')}"
    named = next((name for name in OUTPUTS if words.endswith(f"-{name}")), None)
    return named or output_of(path.suffix.lower()) or "mask"
