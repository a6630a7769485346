"""Files of annotation programs: one format a module, found by name in `FORMATS`."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from pydantic import ValidationError

from alserve.arrays import Mask
from alserve.errors import DataError
from alserve.label_studio.config import FOREGROUND as FOREGROUND
from alserve.registry import Registry
from training.annotate.fields import first_fault


@dataclass(frozen=True)
class Annotation:
    """One image's mask."""

    name: str
    """The image's path or file name, with forward slashes, as the annotation program knows it."""
    mask: Mask | None
    """bool [height, width]; None where the person skipped the image, or `Source.shape_of` knows none of this name."""


@dataclass(frozen=True)
class Draft:
    """An image to annotate."""

    name: str
    """Its path, with forward slashes."""
    shape: tuple[int, int]
    """(height, width) in pixels."""
    mask: Mask | None
    """bool [height, width]; None where there is no draft."""


@dataclass(frozen=True)
class Source:
    """A file or folder that an annotation program wrote."""

    path: Path
    shape_of: Callable[[str], tuple[int, int] | None] | None = None
    """Returns (height, width), in pixels, of the image of a name, for formats that do not tell; None where there is no
    such image. None in its place where the images are not known."""

    @cached_property
    def content(self) -> Any:  # noqa: ANN401  whatever the JSON holds
        """What a JSON file holds; None for a folder, and for a file that is no JSON."""
        try:
            return json.loads(self.path.read_bytes()) if self.path.is_file() else None
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True)
class Format:
    """How one kind of annotation program stores masks.

    Args:
        description: What a source is, for messages, such as "a COCO file".
        recognize: Tells whether a source is of this format.
        read: Yields one annotation per image, of a source that was recognized.
        write: Returns the file that shows drafts to a person; the second argument comes before an image's path in the
            address that the program loads it from. None where there is no such file.
        setup: What the program has to be set up with before it reads the drafts, for the person to copy.
    """

    description: str
    recognize: Callable[[Source], bool]
    read: Callable[[Source], Iterator[Annotation]]
    write: Callable[[Sequence[Draft], str], bytes] | None = None
    setup: str = ""


FORMATS: Registry[Format] = Registry("annotation format", __name__)
"""All formats, by the name that `alserve masks export --format` knows them by."""


def written_formats() -> list[str]:
    """Return the names of the formats that drafts are written in."""
    return [name for name, format_ in FORMATS.items() if format_.write]


def recognized(source: Source) -> Format:
    """Return the format of a source: the first that recognizes it.

    Raises:
        DataError: It is in none.
    """
    path = source.path
    found = next((one for one in FORMATS.values() if one.recognize(source)), None)
    if found is not None:
        return found
    if not path.is_dir() and not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if is_zipfile(path):
        raise DataError(f"{path}: is a zip archive; unpack it, and name the file or folder in it")
    if source.content is None:
        raise DataError(f"{path}: is no JSON file, or ends too early; export it again")
    raise DataError(f"{path}: is none of: {', '.join(dict.fromkeys(one.description for one in FORMATS.values()))}")


def read_annotations(
    path: Path, shape_of: Callable[[str], tuple[int, int] | None] | None = None
) -> Iterator[Annotation]:
    """Read the masks that an annotation program wrote, in whichever of `FORMATS`.

    Args:
        path: Its file or folder.
        shape_of: See `Source`.

    Yields:
        One annotation per image; all regions of an image are its foreground, whatever their label, but for those that
        CVAT and QuPath know as background. Images without any region are left out of COCO, CVAT's and GeoJSON files,
        which do not tell whether they were looked at.

    Raises:
        DataError: The format is unknown, or a mask cannot be decoded; or a picture is a photograph, see
            `training.annotate.checks.check_drawn`.
    """
    source = Source(path, shape_of)
    found = recognized(source)
    try:
        yield from found.read(source)
    except ValidationError as error:
        raise DataError(f"{path}: a mask cannot be read ({first_fault(error)}); export it again") from None
    except KeyError as error:
        raise DataError(f"{path}: a mask cannot be read ({error} is missing)") from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: a mask cannot be read ({error})") from None
