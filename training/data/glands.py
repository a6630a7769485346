"""The shapes of drawn glands: regular ones are oval; irregular ones are lobed, branched or pierced (cribriform).

All lengths are in drawn pixels, see `training.data.tissue`.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from alserve.arrays import Float64, Mask
from training.data.texture import depth_inside, noise, soften

GROUP = (480, 640)
"""Each piece of the image of about this many drawn pixels, height by width, has one group of glands."""

MOST_IN_GROUP = 40
"""Attempts to place a gland in a group."""

Form = Callable[[Generator], Mask]
"""Draws the body of one gland."""


class Gland(NamedTuple):
    """A gland on the canvas."""

    place: tuple[slice, slice]
    """The rows and columns that the two maps cover."""
    body: Mask
    """Epithelium and lumen."""
    lumen: Mask


def place_glands(rng: Generator, label: str, shape: tuple[int, int], margin: int) -> tuple[list[Gland], Mask]:
    """Put groups of glands on the canvas, no gland over another.

    Args:
        rng: The source of everything random.
        label: "regular" or "irregular".
        shape: (height, width) of the canvas.
        margin: Groups have their centres at least this far from the canvas's edges.

    Returns:
        The glands, and their bodies on the canvas: bool [height, width].
    """
    irregular = label == "irregular"
    gap = 7 if irregular else 13
    lumen_share = rng.uniform(0.08, 0.38)
    forms: list[Form] = [_lobed, _branched, _pierced] if irregular else [_oval]
    covered = np.zeros(shape, bool)
    glands: list[Gland] = []
    inner = [side - 2 * margin for side in shape]
    groups = max(1, round(inner[0] * inner[1] / (GROUP[0] * GROUP[1])))
    for _ in range(groups):
        centre = [margin + rng.uniform(0.25, 0.75) * side for side in inner]
        share, area = rng.uniform(0.14, 0.26), 0
        for _ in range(MOST_IN_GROUP):
            form = forms[rng.integers(len(forms))]
            body = _ruffle(rng, form(rng), 0.08 if irregular else 0.03)
            middle = rng.normal(centre, 95)
            top, left = (round(at - side / 2) for at, side in zip(middle, body.shape, strict=True))
            place = np.s_[max(0, top) : top + body.shape[0], max(0, left) : left + body.shape[1]]
            wide = cv2.dilate(body.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap)))
            if covered[place].shape == body.shape and not (covered[place] & (wide > 0)).any():
                covered[place] |= body
                area += int(body.sum())
                glands.append(Gland(place, body, _hollow(rng, body, lumen_share, pierced=form is _pierced)))
            if area > share * inner[0] * inner[1] / groups:
                break
    return glands, covered


def _outline(rng: Generator, radius: float, waves: dict[int, float], stretch: float) -> Mask:
    """Fill a closed curve whose radius swings by a share (values), a number of times a turn (keys)."""
    turn = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    length = np.ones_like(turn)
    for count, share in waves.items():
        length += share * np.cos(count * turn + rng.uniform(0, 2 * np.pi))
    x, y = radius * np.maximum(length, 0.3) * np.array([np.cos(turn), stretch * np.sin(turn)])
    angle = rng.uniform(0, np.pi)
    points = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)
    corner = points.min(axis=0) - 6
    shape = np.ceil(points.max(axis=0) - corner + 6).astype(int)
    patch = np.zeros(shape[::-1], np.uint8)
    cv2.fillPoly(patch, [(points - corner).round().astype(np.int32)], 1)
    return patch > 0


def _oval(rng: Generator) -> Mask:
    waves = {2: 0.03, 3: rng.uniform(0, 0.04), 5: rng.uniform(0, 0.02)}
    return _outline(rng, rng.uniform(44, 84), waves, rng.uniform(0.68, 1))


def _lobed(rng: Generator) -> Mask:
    waves = {2: 0.15, 3: 0.12, int(rng.integers(4, 7)): rng.uniform(0.2, 0.32), 9: rng.uniform(0.03, 0.08)}
    return _outline(rng, rng.uniform(52, 84), waves, rng.uniform(0.7, 1))


def _pierced(rng: Generator) -> Mask:
    waves = {2: 0.08, 3: 0.1, 5: 0.07, 8: rng.uniform(0.03, 0.07)}
    return _outline(rng, rng.uniform(58, 88), waves, rng.uniform(0.7, 1))


def _branched(rng: Generator) -> Mask:
    """Join a bent trunk and its side branches, with bulging ends."""
    patch = np.zeros((420, 420), np.uint8)
    heading = rng.uniform(0, 2 * np.pi)
    trunk = _walk(rng, np.array([210.0, 210.0]), heading, steps=4)
    lines = [trunk, _walk(rng, trunk[0], heading + np.pi, steps=2)]
    for joint, side in zip(trunk[1:4:2], rng.choice([-1, 1]) * np.array([1, -1]), strict=True):
        lines.append(_walk(rng, joint, heading + side * rng.uniform(0.9, 1.5), steps=2))
    for line in lines:
        thickness = int(rng.integers(38, 54))
        cv2.polylines(patch, [line.round().astype(np.int32)], isClosed=False, color=1, thickness=thickness)
        cv2.circle(patch, [round(c) for c in line[-1]], int(rng.integers(25, 34)), 1, -1)
    rows, columns = (np.flatnonzero(patch.any(axis=axis)) for axis in (1, 0))
    return np.pad(patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 8) > 0


def _walk(rng: Generator, start: Float64, heading: float, steps: int) -> Float64:
    turns = heading + np.cumsum(rng.uniform(-0.5, 0.5, steps))
    return np.vstack([start, start + np.cumsum(26 * np.stack([np.cos(turns), np.sin(turns)], axis=1), axis=0)])


def _ruffle(rng: Generator, body: Mask, amount: float) -> Mask:
    """Make an edge uneven."""
    return soften(body, 4) + amount * noise(rng, body.shape, 14) > 0.5  # noqa: PLR2004


def _hollow(rng: Generator, body: Mask, share: float, *, pierced: bool) -> Mask:
    """Open a lumen, or several, in a share of the body."""
    if not pierced:
        depth = depth_inside(body) * (1 + 0.06 * noise(rng, body.shape, 10))
        return body & (depth > float(np.quantile(depth[body], 1 - share)))
    holes = np.zeros(body.shape, np.uint8)
    for _ in range(60):
        if holes.sum() > share * body.sum():
            break
        radius = int(rng.integers(9, 22))
        room = np.argwhere(depth_inside(body & (holes == 0)) > radius + 9)
        if len(room):
            row, column = rng.choice(room)
            axes = (radius, round(radius * rng.uniform(0.7, 1)))
            cv2.ellipse(holes, (int(column), int(row)), axes, rng.uniform(0, 180), 0, 360, 1, -1)
    return holes > 0
