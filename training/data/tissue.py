"""Draw stained tissue whose two classes differ in the shape of their glands.

Tissue is drawn as two maps, how much haematoxylin and how much eosin a place has taken up, and turned to
light by the Beer-Lambert law. Stain, brightness, and the shares of gland, lumen and nuclei vary from image to
image in the same way in both classes, so that colour does not tell them apart: regular glands are round and
evenly lined, irregular ones are lobed, branched or pierced (cribriform), their nuclei out of order.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from alserve.arrays import Float32, Float64, Mask, UInt8
from alserve.geometry import resize, resize_mask

CLASSES = ("regular", "irregular")

SCALE = 2
"""Tissue is drawn at twice its size and reduced, which softens edges. Lengths below are in drawn pixels."""

MARGIN = 72
"""Drawn beyond each border and cut off, so that glands run out of the picture, as they do on a slide."""

STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]], np.float32)
"""Optical density of haematoxylin and of eosin in red, green and blue (Macenko et al., ISBI 2009)."""


def draw_tissue(rng: Generator, label: str, size: tuple[int, int]) -> tuple[UInt8, Mask]:
    """Draw one image of tissue.

    Args:
        rng: The source of everything random.
        label: One of `CLASSES`.
        size: (height, width) in pixels.

    Returns:
        The image, uint8 [height, width, 3], RGB, and its glands (epithelium and lumen), bool [height, width].
    """
    height, width = (SCALE * side + 2 * MARGIN for side in size)
    tissue = _stroma(rng, *_place_glands(rng, label, (height, width)))
    _strew_distractors(rng, tissue)
    _paint_glands(rng, tissue, label)
    inner = np.s_[MARGIN : height - MARGIN, MARGIN : width - MARGIN]
    image = _develop(rng, tissue.haematoxylin[inner], tissue.eosin[inner], size)
    return image, resize_mask(tissue.gland[inner], size)


class Gland(NamedTuple):
    """A gland on the canvas."""

    place: tuple[slice, slice]
    """The rows and columns that the two maps cover."""
    body: Mask
    """Epithelium and lumen."""
    lumen: Mask


@dataclass
class Tissue:
    """Stain on a canvas: maps float32 [height, width], 0 and up, 1 a deep stain."""

    glands: list[Gland]
    gland: Mask
    """All glands' bodies."""
    clearance: Float32
    """Distance from the nearest gland, in drawn pixels."""
    fibres: Float32
    """The direction in which stroma runs, as an angle in radians."""
    haematoxylin: Float32
    eosin: Float32


# --- the shapes of glands -----------------------------------------------------------------------------------


def _outline(rng: Generator, radius: float, waves: dict[int, float], stretch: float) -> Mask:
    """Fill a closed curve whose radius swings by a share (values) so many times a turn (keys)."""
    turn = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    length = np.ones_like(turn)
    for count, share in waves.items():
        length += share * np.cos(count * turn + rng.uniform(0, 2 * np.pi))
    x, y = radius * np.maximum(length, 0.3) * np.array([np.cos(turn), stretch * np.sin(turn)])
    angle = rng.uniform(0, np.pi)
    points = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)
    return _filled(points)


def _filled(points: Float64) -> Mask:
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
    soft = cv2.GaussianBlur(body.astype(np.float32), (0, 0), 4)
    return soft + amount * _noise(rng, body.shape, 14) > 0.5  # noqa: PLR2004


def _hollow(rng: Generator, body: Mask, share: float, *, pierced: bool) -> Mask:
    """Open a lumen, or several, in a share of the body."""
    if not pierced:
        depth = _depth(body) * (1 + 0.06 * _noise(rng, body.shape, 10))
        return body & (depth > float(np.quantile(depth[body], 1 - share)))
    holes = np.zeros(body.shape, np.uint8)
    for _ in range(60):
        if holes.sum() > share * body.sum():
            break
        radius = int(rng.integers(9, 22))
        room = np.argwhere(_depth(body & (holes == 0)) > radius + 9)
        if len(room):
            row, column = rng.choice(room)
            axes = (radius, round(radius * rng.uniform(0.7, 1)))
            cv2.ellipse(holes, (int(column), int(row)), axes, rng.uniform(0, 180), 0, 360, 1, -1)
    return holes > 0


def _place_glands(rng: Generator, label: str, shape: tuple[int, int]) -> tuple[list[Gland], Mask]:
    """Put glands on the canvas, none over another, until they cover their share of it."""
    irregular = label == "irregular"
    covered = np.zeros(shape, bool)
    area = 0
    glands: list[Gland] = []
    share, gap = rng.uniform(0.22, 0.4), 7 if irregular else 13
    lumen_share = rng.uniform(0.18, 0.38)
    forms: list[Callable[[Generator], Mask]] = [_lobed, _branched, _pierced] if irregular else [_oval]
    for _ in range(90):
        form = forms[rng.integers(len(forms))]
        body = _ruffle(rng, form(rng), 0.08 if irregular else 0.03)
        top, left = (int(rng.integers(0, max(1, a - b))) for a, b in zip(shape, body.shape, strict=True))
        place = np.s_[top : top + body.shape[0], left : left + body.shape[1]]
        wide = cv2.dilate(body.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap)))
        if covered[place].shape == body.shape and not (covered[place] & (wide > 0)).any():
            covered[place] |= body
            area += body.sum()
            glands.append(Gland(place, body, _hollow(rng, body, lumen_share, pierced=form is _pierced)))
        if area > share * covered.size:
            break
    return glands, covered


# --- the ground and what lies in it -------------------------------------------------------------------------


def _stroma(rng: Generator, glands: list[Gland], gland: Mask) -> Tissue:
    """Lay down collagen that streams around the glands, with pale gaps, and its spindle-shaped nuclei."""
    shape = gland.shape
    clearance = _depth(~gland)
    flow = cv2.GaussianBlur(np.minimum(clearance, 60), (0, 0), 8) + 22 * _noise(rng, shape, 90)
    fibres = _float(np.arctan2(cv2.Sobel(flow, -1, 0, 1), cv2.Sobel(flow, -1, 1, 0)) + np.pi / 2)
    streaks = _smear(_noise(rng, shape, 3), fibres)
    pale = np.clip(_noise(rng, shape, 40) + 0.8 * streaks - 1.1, 0, 1)
    eosin = (0.62 + 0.1 * streaks + 0.07 * _noise(rng, shape, 60)) * (1 - 0.8 * pale)
    eosin += 0.2 * np.exp(-np.square(clearance - 3) / 4)  # the basement membrane
    tissue = Tissue(glands, gland, clearance, fibres, np.full(shape, 0.07, np.float32), _float(eosin))
    count = round(gland.size * rng.uniform(2.5e-4, 5e-4))
    _paint_nuclei(
        rng,
        tissue,
        [
            (row, column, rng.uniform(7, 12), rng.uniform(2.2, 3.5), fibres[row, column])
            for row, column in _open_ground(rng, tissue, 7, count)
        ],
    )
    return tissue


def _strew_distractors(rng: Generator, tissue: Tissue) -> None:
    """Add what a colour threshold takes for gland: fat and tears, lymphocytes, blood."""
    for centre in _open_ground(rng, tissue, 16, int(rng.integers(0, 5))):
        for spot in _scatter(rng, tissue, centre, 36, count=int(rng.integers(2, 9)), away=12):
            _clear(rng, tissue, spot, (rng.uniform(9, 22), rng.uniform(9, 22)), rng.uniform(0, np.pi))
    for spot in _open_ground(rng, tissue, 9, int(rng.integers(1, 5))):
        axes = rng.uniform(15, 48), rng.uniform(4, 8)
        _clear(rng, tissue, spot, axes, float(tissue.fibres[spot]))
    for centre in _open_ground(rng, tissue, 14, int(rng.integers(1, 5))):
        spread, count = rng.uniform(18, 40), int(rng.integers(20, 90))
        spots = _scatter(rng, tissue, centre, spread, count=count, away=7)
        _paint_nuclei(rng, tissue, [(y, x, 5.5, rng.uniform(4.5, 5.5), 0) for y, x in spots], depth=1.25)
    for centre in _open_ground(rng, tissue, 12, int(rng.integers(0, 5))):
        spots = _scatter(rng, tissue, centre, 20, count=int(rng.integers(4, 40)), away=7)
        _paint_blood(rng, tissue, spots)


def _clear(rng: Generator, tissue: Tissue, place: tuple[int, int], axes: tuple[float, float], angle: float) -> None:
    """Empty an ellipse outside the glands, and give it a thin dark rim."""
    (row, column), reach = place, round(max(axes) * 1.5) + 6
    top, left = max(0, row - reach), max(0, column - reach)
    window = np.s_[top : row + reach, left : column + reach]
    outline = np.zeros(tissue.gland[window].shape, np.float32)
    lengths = [round(axis) for axis in axes]
    cv2.ellipse(outline, (column - left, row - top), lengths, np.degrees(angle), 0, 360, 1, -1)
    hole = cv2.GaussianBlur(outline, (0, 0), 2.5) + 0.17 * _noise(rng, outline.shape, 9)
    hole = np.clip((hole - 0.5) * 5 + 0.5, 0, 1) * np.clip(tissue.clearance[window] - 5, 0, 1)
    rim = 4 * hole * (1 - hole)
    tissue.eosin[window] = tissue.eosin[window] * (1 - 0.97 * hole) + 0.3 * rim
    tissue.haematoxylin[window] *= 1 - 0.9 * hole


def _paint_blood(rng: Generator, tissue: Tissue, spots: list[tuple[int, int]]) -> None:
    blank = np.zeros_like(tissue.eosin)
    for row, column in spots:
        axes = rng.integers(5, 8, 2).tolist()
        cv2.ellipse(blank, (column, row), axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.9, 1.3), -1)
    layer = _float(cv2.GaussianBlur(blank, (0, 0), 1))
    np.maximum(tissue.eosin, layer, out=tissue.eosin)
    tissue.haematoxylin *= 1 - 0.9 * np.minimum(layer, 1)


# --- the glands ---------------------------------------------------------------------------------------------


def _paint_glands(rng: Generator, tissue: Tissue, label: str) -> None:
    """Fill the glands: columnar cytoplasm, paler towards the lumen, and nuclei, in a row or in disorder."""
    mucin = rng.uniform(0.25, 0.55)
    nuclei: list[tuple[int, int, float, float, float]] = []
    for gland in tissue.glands:
        epithelium = gland.body & ~gland.lumen
        inner = np.clip(_depth(gland.body) / 26, 0, 1)
        soft = cv2.GaussianBlur(epithelium.astype(np.float32), (0, 0), 1.2)
        body = cv2.GaussianBlur(gland.body.astype(np.float32), (0, 0), 1.2)
        grain = 1 + 0.16 * _noise(rng, epithelium.shape, 5)
        secretion = np.clip(0.1 * _noise(rng, epithelium.shape, 16), 0, 0.3) + 0.02
        for stain, depth, in_lumen in (
            (tissue.haematoxylin, 0.34 - 0.14 * inner, 0.4),
            (tissue.eosin, 0.6 - mucin * inner, 1),
        ):
            ground = stain[gland.place]
            ground += body * (soft * depth * grain + (1 - soft) * in_lumen * secretion - ground)
        nuclei += [
            (row + gland.place[0].start, column + gland.place[1].start, *rest)
            for row, column, *rest in _line(rng, gland.body, epithelium, ordered=label == "regular")
        ]
    _paint_nuclei(rng, tissue, nuclei)


def _line(
    rng: Generator, body: Mask, epithelium: Mask, *, ordered: bool
) -> Iterator[tuple[int, int, float, float, float]]:
    """Return a gland's nuclei, as many for its epithelium in either class: (row, column, half-axes, angle)."""
    depth = cv2.GaussianBlur(_depth(body), (0, 0), 2)
    count = round(epithelium.sum() / 215)
    rings, _ = cv2.findContours(
        (depth > rng.uniform(8.5, 10.5)).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    ring = np.concatenate([part[:, 0, ::-1] for part in rings])
    in_row = count if ordered else count // 2
    spots = ring[np.linspace(0, len(ring), in_row, endpoint=False).astype(int)]
    spots = spots + rng.normal(0, 0.8 if ordered else 2, spots.shape).round().astype(int)
    loose = np.argwhere(_depth(epithelium) > 5)  # noqa: PLR2004
    if not ordered and len(loose):
        spots = np.concatenate([spots, rng.choice(loose, count - in_row)])
    down, right = cv2.Sobel(depth, -1, 0, 1), cv2.Sobel(depth, -1, 1, 0)
    for row, column in spots:
        angle = np.arctan2(down[row, column], right[row, column]) + rng.normal(0, 0.15 if ordered else 0.7)
        yield row, column, rng.uniform(6.5, 8.5), rng.uniform(4.2, 5.4), angle


def _paint_nuclei(
    rng: Generator,
    tissue: Tissue,
    nuclei: list[tuple[int, int, float, float, float]],
    depth: float = 0.95,
) -> None:
    """Paint nuclei, each (row, column, half-axis along, half-axis across, angle in radians)."""
    layer = np.zeros_like(tissue.haematoxylin)
    for row, column, along, across, angle in nuclei:
        stain = depth * rng.uniform(0.8, 1.2)
        ellipse = (round(column), round(row)), (round(along), round(across)), np.degrees(angle), 0, 360
        cv2.ellipse(layer, *ellipse, stain, -1)
        cv2.ellipse(layer, *ellipse, stain * 1.2, 1)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.9) * (1 + 0.15 * _noise(rng, layer.shape, 4))
    np.maximum(tissue.haematoxylin, layer, out=tissue.haematoxylin)


# --- tools --------------------------------------------------------------------------------------------------


def _noise(rng: Generator, shape: tuple[int, ...], scale: float) -> Float32:
    """Return smooth noise of mean 0 and deviation about 1, with blobs of `scale` pixels."""
    coarse = rng.standard_normal([int(side / scale) + 4 for side in shape], np.float32)
    return _float(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def _float(values: npt.NDArray[Any] | cv2.typing.MatLike) -> Float32:
    return np.asarray(values, np.float32)


def _depth(inside: Mask) -> Float32:
    """Return the distance of every inside pixel from the outside, in pixels."""
    return _float(cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5))


def _smear(noise: Float32, angle: Float32) -> Float32:
    """Smear noise along a direction field: a line integral convolution by doubling."""
    rows, columns = np.indices(noise.shape, np.float32)
    x, y = np.cos(angle), np.sin(angle)
    smeared = noise
    for step in (2, 4, 8):
        ahead, behind = (
            cv2.remap(smeared, columns + s * x, rows + s * y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            for s in (step, -step)
        )
        smeared = _float((smeared + ahead + behind) / 2)
    return smeared


def _open_ground(rng: Generator, tissue: Tissue, away: float, count: int) -> list[tuple[int, int]]:
    """Choose places at least so far from every gland: (row, column); none where there is no room."""
    tries = rng.integers(0, tissue.gland.shape, (6 * count, 2))
    return [(int(row), int(column)) for row, column in tries if tissue.clearance[row, column] > away][:count]


def _scatter(
    rng: Generator, tissue: Tissue, centre: tuple[int, int], spread: float, *, count: int, away: float
) -> list[tuple[int, int]]:
    """Choose places about a centre, in open ground."""
    around = rng.normal(centre, spread, (count, 2)).round().astype(int)
    height, width = tissue.gland.shape
    return [(int(y), int(x)) for y, x in around if 0 <= y < height and 0 <= x < width and tissue.clearance[y, x] > away]


def _develop(rng: Generator, haematoxylin: Float32, eosin: Float32, size: tuple[int, int]) -> UInt8:
    """Turn stain to light (Beer-Lambert), each image with its own section, stain bath and camera."""
    strength = rng.uniform((0.7, 0.65), (1.35, 1.35))
    stains = STAINS * rng.uniform(0.92, 1.08, STAINS.shape)
    thickness = 1 + 0.08 * _noise(rng, haematoxylin.shape, 200)
    taken_up = np.stack([haematoxylin, eosin], axis=-1) * thickness[..., None]
    light = np.exp(np.maximum(taken_up, 0) @ _float(-strength[:, None] * stains))
    light = resize(cv2.GaussianBlur(light, (0, 0), rng.uniform(0.4, 1.4)), size)
    white = rng.uniform(0.88, 1) * rng.uniform(0.97, 1, 3)
    pixels = 255 * light * white + rng.normal(0, 1.5, light.shape)
    return np.clip(pixels, 0, 255).round().astype(np.uint8)
