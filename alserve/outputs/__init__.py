"""What a prediction can be written as: one output a module, found by name in `OUTPUTS`.

The command line, the folder run, the service and its description read this registry.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Protocol

from alserve.arrays import Float32, Grey, Image, Mask
from alserve.objects import MaskObject, count_objects, find_objects
from alserve.postprocessing import STATED, UNCHANGED, PostProcessing
from alserve.registry import Registry

MOST_COUNTED = 2**27
"""Pixels of an image, see `Case.count_objects`."""


class Predicted(Protocol):
    """What an output may ask of a prediction, see `alserve.predictor.Prediction`."""

    @property
    def label(self) -> str:
        """The class with the highest score."""

    @property
    def scores(self) -> Mapping[str, float]:
        """Score by class name, 0 to 1, of all classes in the model's order."""

    @property
    def threshold(self) -> float:
        """Probability, 0 to 1, above which the model takes a pixel for foreground."""

    def mask(
        self, threshold: float | None = None, *, smooth: float = 0.0, fill_holes: bool = False, min_area: int = 0
    ) -> Mask:
        """Return the foreground, bool [height, width]; see `alserve.postprocessing.PostProcessing`."""

    def probability(self) -> Float32:
        """Return the foreground probability, float32 [height, width], 0 to 1."""

    def cam_grey(self, label: str | None = None) -> Grey:
        """Return a class activation map, uint8 [height, width]."""


@dataclass(frozen=True, eq=False)
class Case:
    """An image with what the model says of it: all that an output is made of."""

    image: Image
    """uint8 [height, width, 3], RGB, upright; where no output asked for it (`Output.draws_on_image`), of any size."""
    prediction: Predicted
    post: PostProcessing = UNCHANGED
    """What is done to the mask, and how its objects are measured."""
    name: str = "image"
    """What files that speak of the image call it."""
    stated_um_per_pixel: float | None = None
    """Side of a pixel in micrometres, as the image's file states it, see `alserve.images.resolution`."""

    @property
    def um_per_pixel(self) -> float | None:
        """Side of a pixel in micrometres, by which objects are measured; None: in pixels only."""
        side = self.post.um_per_pixel
        return self.stated_um_per_pixel if isinstance(side, str) else side

    def warning(self, of_image: str | None) -> str | None:
        """Return what a user should know: what the decoder said of the image, and how objects are measured."""
        missing = self.post.um_per_pixel == STATED and self.stated_um_per_pixel is None
        measured = "the file states no usable size of a pixel: measured in pixels only" if missing else None
        return "; ".join(filter(None, (of_image, measured))) or None

    @property
    def threshold(self) -> float:
        """Probability, 0 to 1, above which a pixel is foreground."""
        return self.prediction.threshold if self.post.threshold is None else self.post.threshold

    @cached_property
    def mask(self) -> Mask:
        """The foreground, after postprocessing: bool [height, width]."""
        post = self.post
        return self.prediction.mask(
            post.threshold, smooth=post.smooth, fill_holes=post.fill_holes, min_area=post.min_area
        )

    @cached_property
    def objects(self) -> Sequence[MaskObject]:
        """The objects of the mask, see `alserve.objects`."""
        return tuple(find_objects(self.mask, self.post.split_touching))

    def count_objects(self) -> int | None:
        """Return the number of the objects, without measuring them where that is possible.

        None where the image has more than `MOST_COUNTED` pixels: numbering the parts of its mask would take four times
        the mask's memory.
        """
        if "objects" in self.__dict__ or self.post.split_touching:
            return len(self.objects)
        return count_objects(self.mask) if self.mask.size <= MOST_COUNTED else None


def _nothing(_: Case) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Joined:
    """One file for all images of a run.

    Args:
        file: Its name, in the folder of the run.
        join: Returns its parts in order, of the content of the images' own files in order, which are read one by one.
    """

    file: str
    join: Callable[[Iterable[bytes]], Iterator[bytes]]


@dataclass(frozen=True)
class Output:
    """One of the things that a prediction can be written as: a file for each image.

    Args:
        description: One line for help texts and for the service's description.
        folder: Where a folder run puts its files, below its output folder.
        encode: Returns the bytes of the file.
        suffix: Of the file's name.
        media_type: Of its content.
        draws_on_image: Whether it needs the image itself, at its own size.
        details: Returns what else the service's JSON says beside the file.
        joined: One file for all images of a run, beside theirs.
    """

    description: str
    folder: str
    encode: Callable[[Case], bytes]
    suffix: str = ".png"
    media_type: str = "image/png"
    draws_on_image: bool = False
    details: Callable[[Case], Mapping[str, str]] = _nothing
    joined: Joined | None = None

    def file_name(self, name: str) -> str:
        """Return the name of an image's file in the output folder of a run.

        Args:
            name: The name of the image's PNG files, relative to the folder of an output.
        """
        own = name if self.suffix == ".png" else PurePosixPath(name).with_suffix(self.suffix)
        return f"{self.folder}/{own}"


OUTPUTS: Registry[Output] = Registry("output", __name__)
"""All outputs, by the name that `--save` and `include` know them by."""


def output_of(suffix: str) -> str | None:
    """Return the output whose files have a suffix, such as ".png": of several the mask, or else the first."""
    fitting = [name for name, output in OUTPUTS.items() if output.suffix == suffix]
    return "mask" if "mask" in fitting else next(iter(fitting), None)
