"""HTML pages that load nothing from elsewhere: templates, and how values, curves and pictures are put into them."""

import base64
import shlex

import cv2
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alserve.arrays import Image
from alserve.drawing import PREDICTED, TRUE
from alserve.geometry import resize
from training.report.statistics import Spread

DASH = "\N{EN DASH}"
"""Stands for a value that was not measured."""

PICTURE_SIDE = 480
"""Pictures in a page are at most so many pixels wide or high."""


def render(template: str, **values: object) -> str:
    """Fill a template of `training/templates/` in; text is escaped, and a name that is not given is an error."""
    environment = Environment(
        loader=PackageLoader("training"),
        autoescape=template.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent,
        points=_points,
        number=_number,
        duration=_duration,
        svg=_svg_url,
        picture=_picture_url,
        quote=shlex.quote,
    )
    return environment.get_template(template).render(colours={"predicted": PREDICTED, "true": TRUE}, **values)


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f}\N{NARROW NO-BREAK SPACE}%"


def _points(spread: Spread | float | None) -> str:
    """Return a share in percent, without the sign; with its deviation where there is one."""
    if spread is None:
        return DASH
    if not isinstance(spread, Spread):
        return f"{100 * spread:.1f}"
    deviation = "" if spread.std is None else f" \N{PLUS-MINUS SIGN} {100 * spread.std:.1f}"
    return f"{100 * spread.mean:.1f}{deviation}"


def _number(value: object) -> str:
    return DASH if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}\N{NARROW NO-BREAK SPACE}min {rest:02}\N{NARROW NO-BREAK SPACE}s" if minutes else f"{rest} s"


def _svg_url(data: bytes) -> Markup:
    return _data_url("image/svg+xml", data)


def _picture_url(pixels: Image, side: int = PICTURE_SIDE) -> Markup:
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    small = resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))
    _, data = cv2.imencode(".webp", small[..., ::-1], (cv2.IMWRITE_WEBP_QUALITY, 86))
    return _data_url("image/webp", bytes(data))


def _data_url(kind: str, data: bytes) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")  # noqa: S704  no markup in base64
