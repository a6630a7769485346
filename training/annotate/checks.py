"""What a mask that a person drew is checked for, and the files by which the person confirms it."""

from pathlib import Path, PurePosixPath

import numpy as np

from alserve.arrays import Mask
from alserve.errors import DataError, ImageError
from alserve.images.codec import Levels, decode_levels, read_bytes
from alserve.paths import check_name
from alserve.places.urls import Location

JPEG = b"\xff\xd8\xff"
"""How a JPEG file begins, whatever its name."""

NEARLY_ALL, MOST_LEVELS = 0.99, 16
"""A picture with a larger share of pixels that are not black, and of more levels, is taken for a photograph."""

INVERTED_BORDER, INVERTED_SHARE = 0.95, 0.5
"""A mask with more foreground along the image's border, and in all, is taken for one of the background."""


def is_marked(masks: Path, name: str, kind: str) -> bool:
    """Tell whether a person left the file NAME.KIND (skip, empty, full) beside the masks; some editors add .txt."""
    return any((masks / f"{name}.{kind}{suffix}").exists() for suffix in ("", ".txt"))


def check_drawn(path: Path, mask: Mask, masks: Path, name: str) -> None:
    """Refuse what is no drawn mask: a JPEG, a photograph, in which hardly a pixel is black, or an inverted mask.

    Args:
        path: The picture.
        mask: What was read from it, bool [height, width].
        masks: Folder in which NAME.full confirms a mask with so much foreground.
        name: NAME, with the folders below `masks`.

    Raises:
        DataError: Says what to do.
    """
    with path.open("rb") as file:
        if file.read(len(JPEG)) == JPEG:
            raise DataError(f"{path}: a JPEG blurs the outline; save the mask as PNG")
    levels = _levels(path)
    drawn = float((levels > 0).mean())
    if drawn > NEARLY_ALL and not is_marked(masks, name, "full") and len(np.unique(levels)) > MOST_LEVELS:
        raise DataError(
            f"{path}: {100 * drawn:.1f} % of it are not black, as in a photograph; draw the mask on black, or if "
            f"that is right, put an empty file {path.with_suffix('.full').name} beside it"
        )
    if looks_inverted(mask) and not is_marked(masks, name, "full"):
        raise DataError(
            f"{path}: {100 * mask.mean():.0f} % of it and nearly all of its border are foreground, as where the "
            "background was painted; invert it, or if that is right, put an empty file "
            f"{path.with_suffix('.full').name} beside it"
        )


def looks_inverted(mask: Mask) -> bool:
    """Tell a mask in which the background was probably painted, and the objects were left out.

    Objects seldom fill an image up to its border on all sides: a mask is taken for inverted where more than
    `INVERTED_BORDER` of the pixels along the image's border are foreground, and more than `INVERTED_SHARE` of all, but
    not all.

    Args:
        mask: bool [height, width].
    """
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return bool(border.mean() > INVERTED_BORDER and mask.mean() > INVERTED_SHARE and not mask.all())


def _levels(path: Path) -> Levels:
    try:
        return decode_levels(read_bytes(path))
    except ImageError as error:
        raise DataError(f"{path}: {error}") from None


def check_one_sided(path: Path, mask: Mask, masks: Path, name: str) -> None:
    """Refuse a mask without foreground or background that no file NAME.empty or NAME.full confirms; see `check_drawn`.

    Raises:
        DataError: Says what to do.
    """
    for kind, side, fault in (("empty", "foreground", not mask.any()), ("full", "background", mask.all())):
        if fault and not is_marked(masks, name, kind):
            raise DataError(
                f"{path}: has no {side}; draw it, or if that is right, put an empty file "
                f"{path.with_suffix(f'.{kind}').name} beside it"
            )


def check_mirrored(name: str, data: Location) -> None:
    """Refuse a data set's image whose name cannot be used below another folder.

    Raises:
        DataError: Says which, and what to do.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(
            f"{data}: image {name} lies outside the CSV's folder, which cannot be mirrored; "
            "put the CSV above its images"
        )
    check_name(name, data)
