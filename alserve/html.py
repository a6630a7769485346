"""Pages that load nothing from elsewhere: a template filled in, with its pictures inside."""

import base64
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import cv2
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alserve.arrays import Image
from alserve.files import write_atomic
from alserve.geometry import resize

PICTURE_SIDE = 480
"""Default of the most pixels that a picture in a page is wide or high."""
WEBP_QUALITY = 86

Filters = Mapping[str, Callable[..., str]]
"""How templates turn values into text, by the name that templates use."""


def write_filled(
    path: Path, template: str, *, package: str = "alserve", filters: Filters | None = None, **values: object
) -> None:
    """Fill in a template and write the result to a file, see `fill`."""
    write_atomic(path, fill(template, package=package, filters=filters, **values))


def fill(template: str, *, package: str = "alserve", filters: Filters | None = None, **values: object) -> bytes:
    """Fill in a template.

    Args:
        template: Name of a file in the package's folder `templates/`. In HTML, text is escaped; a value that is not
            given is an error.
        package: The package; its templates can extend and include those of `alserve`.
        filters: Filters of the template beside `picture`, `shell` and `url`.
        **values: What the template shows.

    Returns:
        The text, in UTF-8.
    """
    html = template.endswith(".html.jinja")
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("alserve")]),
        autoescape=html,  # noqa: S701  Markdown is not HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({"picture": picture_url, "shell": shlex.quote, "url": _path_url, **(filters or {})})
    text = environment.get_template(template).render(**values)
    return text.encode(errors="xmlcharrefreplace" if html else "backslashreplace")


def picture_url(pixels: Image, side: int = PICTURE_SIDE) -> Markup:
    """Return a picture as a data URL of a WebP, at most `side` pixels wide and high.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        side: In pixels.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    small = resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))
    _, data = cv2.imencode(".webp", small[..., ::-1], (cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY))
    return data_url("image/webp", bytes(data))


def data_url(kind: str, data: bytes) -> Markup:
    """Return a file as a data URL, given its media type."""
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")  # noqa: S704  no markup in base64


def _path_url(path: str) -> str:
    """Return a relative path as a URL, whatever bytes it has."""
    try:
        return quote(os.fsencode(path))
    except UnicodeEncodeError:  # no file has such a name
        return quote(path, errors="replace")
