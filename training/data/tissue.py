"""Draw stained tissue whose two classes differ in the shape of their glands.

Tissue is drawn as maps of how much of each component a place has, and a stain turns these to light. Stain,
brightness, magnification, what else lies in the tissue and the shares of gland, lumen and nuclei vary from image to
image in the same way in both classes, so that colour does not tell them apart: regular glands are oval and evenly
lined, irregular ones are lobed, branched or pierced, their nuclei out of order. Glands lie in groups, in a part of the
image. The rest has what looks like glands under another stain: vessels, fat, follicles, muscle, pools of mucin.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from alserve.arrays import Float32, Mask, UInt8
from alserve.geometry import resize_mask
from training.data.glands import Gland, place_glands
from training.data.staining import Stain, develop
from training.data.texture import as_float, depth_inside, noise, smear, soften

CLASSES = ("regular", "irregular")

SCALE = (1.5, 2.4)
"""Drawn pixels per pixel of the image: the magnification, and what softens edges. Lengths below are drawn pixels."""

MARGIN = 72
"""Drawn beyond each border and cut off, so that glands run out of the picture, as they do on a slide."""

Spot = tuple[int, int]
"""(row, column)."""

Ellipse = tuple[float, float, float, float, float]
"""(row, column, half-axis along, half-axis across, angle in radians)."""


def draw_tissue(rng: Generator, label: str, size: tuple[int, int]) -> tuple[UInt8, Mask]:
    """Draw one image of tissue.

    Args:
        rng: The source of everything random.
        label: One of `CLASSES`.
        size: (height, width) in pixels.

    Returns:
        The image, uint8 [height, width, 3], RGB, and its glands (epithelium and lumen), bool [height, width].
    """
    scale = rng.uniform(*SCALE)
    height, width = (round(scale * side) + 2 * MARGIN for side in size)
    tissue = _ground(rng, *place_glands(rng, label, (height, width), MARGIN))
    _add_distractors(rng, tissue)
    _paint_glands(rng, tissue, ordered=label == "regular")
    inner = np.s_[MARGIN : height - MARGIN, MARGIN : width - MARGIN]
    image = develop(rng, {name: part[inner] for name, part in tissue.parts.items()}, size)
    return image, resize_mask(tissue.gland[inner], size)


@dataclass
class Tissue:
    """Amounts of the components of a `Stain` on a canvas."""

    glands: list[Gland]
    gland: Mask
    """All glands' bodies: bool [height, width]."""
    clearance: Float32
    """Distance from the nearest gland: float32 [height, width]."""
    fibres: Float32
    """The direction of the collagen's fibres, as an angle in radians: float32 [height, width]."""
    parts: dict[str, Float32]
    """By a component's name: float32 [height, width], 0 and up, 1 a deep stain."""

    def lay(self, place: tuple[slice, slice], cover: Float32, **amounts: Float32 | float) -> None:
        """Replace what is there by these components, where and as far as `cover` (0 to 1) says."""
        for name, part in self.parts.items():
            part[place] += cover * (amounts.get(name, 0) - part[place])


# --- the ground and what lies in it -------------------------------------------------------------------------


def _ground(rng: Generator, glands: list[Gland], gland: Mask) -> Tissue:
    """Lay down collagen that streams around the glands, with pale gaps, and its spindle-shaped nuclei."""
    shape = gland.shape
    clearance = depth_inside(~gland)
    flow = soften(np.minimum(clearance, 60), 8) + 22 * noise(rng, shape, 90)
    fibres = as_float(np.arctan2(cv2.Sobel(flow, -1, 0, 1), cv2.Sobel(flow, -1, 1, 0)) + np.pi / 2)
    streaks = smear(noise(rng, shape, 3), fibres)
    pale = np.clip(noise(rng, shape, 40) + 0.8 * streaks - 1.1, 0, 1)
    collagen = (1 + 0.16 * streaks + 0.11 * noise(rng, shape, 60)) * (1 - 0.8 * pale)
    collagen += 0.3 * np.exp(-np.square(clearance - 3) / 4)  # the basement membrane
    parts = {name: np.zeros(shape, np.float32) for name in Stain._fields}
    tissue = Tissue(glands, gland, clearance, fibres, {**parts, "collagen": as_float(collagen)})
    spots = _open_spots(rng, tissue, 7, round(gland.size * rng.uniform(2.5e-4, 5e-4)))
    _paint_nuclei(rng, tissue, [_spindle(rng, tissue, spot) for spot in spots])
    return tissue


def _add_distractors(rng: Generator, tissue: Tissue) -> None:
    """Add what looks like a gland, or like its lumen, under one stain or another."""
    for add, most in ((_muscle, 2), (_pool, 3), (_vessel, 3), (_fat, 3), (_follicle, 3), (_tear, 4), (_blood, 4)):
        for centre in _open_spots(rng, tissue, 16, int(rng.integers(0, most + 1))):
            add(rng, tissue, centre)


def _muscle(rng: Generator, tissue: Tissue, centre: Spot) -> None:
    axes = rng.uniform(60, 110), rng.uniform(22, 38)
    angle = float(tissue.fibres[centre])
    place, cover = _blob(rng, tissue, centre, axes, angle, ruffle=0.12)
    grain = smear(noise(rng, cover.shape, 3), np.full(cover.shape, angle, np.float32))
    tissue.lay(place, cover, muscle=0.8 + 0.12 * grain)
    top, left = (along.start for along in place)
    inside = np.argwhere(cover > 0.9)  # noqa: PLR2004
    spots: list[Spot] = list(rng.choice(inside, round(len(inside) / 420))) if len(inside) else []
    _paint_nuclei(rng, tissue, [(top + y, left + x, rng.uniform(8, 13), 2.4, angle) for y, x in spots])


def _pool(rng: Generator, tissue: Tissue, centre: Spot) -> None:
    axes = rng.uniform(24, 60), rng.uniform(14, 30)
    place, cover = _blob(rng, tissue, centre, axes, rng.uniform(0, np.pi), ruffle=0.25)
    tissue.lay(place, cover, mucin=0.8 + 0.15 * noise(rng, cover.shape, 12))


def _vessel(rng: Generator, tissue: Tissue, centre: Spot) -> None:
    """Draw a wall of muscle, with flat nuclei along it, about blood or nothing."""
    radius, angle = rng.uniform(24, 52), rng.uniform(0, np.pi)
    axes = radius, radius * rng.uniform(0.6, 1)
    thickness = rng.uniform(8, 14)
    place, cover = _blob(rng, tissue, centre, axes, angle, ruffle=0.04)
    tissue.lay(place, cover, muscle=0.75 + 0.1 * noise(rng, cover.shape, 5))
    hole, lumen = _blob(rng, tissue, centre, (axes[0] - thickness, axes[1] - thickness), angle, ruffle=0.06)
    tissue.lay(hole, lumen, muscle=float(rng.choice([0.02, 0.02, 0.9])))
    turn = rng.uniform(0, 2 * np.pi, round(radius * 0.5))
    along, across = (np.array(axes) - rng.uniform(3, thickness, (len(turn), 2))).T
    x, y = along * np.cos(turn), across * np.sin(turn)
    rows, columns = centre[0] + x * np.sin(angle) + y * np.cos(angle), centre[1] + x * np.cos(angle) - y * np.sin(angle)
    tilt = np.arctan2(across * np.cos(turn), -along * np.sin(turn)) + angle
    ellipses = [(r, c, 6.5, 2.2, t) for r, c, t in zip(rows, columns, tilt, strict=True)]
    _paint_nuclei(rng, tissue, ellipses)


def _fat(rng: Generator, tissue: Tissue, centre: Spot) -> None:
    for spot in _scatter(rng, tissue, centre, 36, count=int(rng.integers(4, 12)), away=12):
        _empty(rng, tissue, spot, (rng.uniform(9, 24), rng.uniform(9, 24)), rng.uniform(0, np.pi))


def _tear(rng: Generator, tissue: Tissue, centre: Spot) -> None:
    _empty(rng, tissue, centre, (rng.uniform(15, 48), rng.uniform(4, 8)), float(tissue.fibres[centre]))


def _empty(rng: Generator, tissue: Tissue, centre: Spot, axes: tuple[float, float], angle: float) -> None:
    place, cover = _blob(rng, tissue, centre, axes, angle, ruffle=0.15)
    tissue.lay(place, cover, collagen=1.2 * (1 - cover))


def _follicle(rng: Generator, tissue: Tissue, centre: Spot) -> None:
    """Draw a crowd of lymphocytes."""
    spread, count = rng.uniform(18, 40), int(rng.integers(30, 150))
    spots = _scatter(rng, tissue, centre, spread, count=count, away=7)
    _paint_nuclei(rng, tissue, [(y, x, 5.5, rng.uniform(4.5, 5.5), 0) for y, x in spots], depth=1.2)


def _blood(rng: Generator, tissue: Tissue, centre: Spot) -> None:
    blank = np.zeros_like(tissue.clearance)
    for row, column in _scatter(rng, tissue, centre, 20, count=int(rng.integers(4, 40)), away=7):
        axes = rng.integers(5, 8, 2).tolist()
        cv2.ellipse(blank, (column, row), axes, rng.uniform(0, 180), 0, 360, 1, -1)
    tissue.lay(np.s_[:, :], soften(blank, 1), muscle=1)


# --- the glands ---------------------------------------------------------------------------------------------


def _paint_glands(rng: Generator, tissue: Tissue, *, ordered: bool) -> None:
    """Fill the glands: columnar cytoplasm, more mucin in it towards the lumen, and nuclei."""
    mucin, secretion = rng.uniform(0.3, 0.7), rng.uniform(0.05, 0.9)
    nuclei: list[Ellipse] = []
    for gland in tissue.glands:
        epithelium = gland.body & ~gland.lumen
        inner = np.clip(depth_inside(gland.body) / 26, 0, 1)
        grain = 1 + 0.16 * noise(rng, epithelium.shape, 5)
        in_lumen = np.clip(secretion * (1 + 0.4 * noise(rng, epithelium.shape, 16)), 0, 1.2)
        soft = soften(epithelium, 1.2)
        tissue.lay(
            gland.place,
            soften(gland.body, 1.2),
            cytoplasm=soft * (1 - mucin * inner) * grain,
            mucin=soft * 0.5 * mucin * inner + (1 - soft) * in_lumen,
        )
        top, left = (along.start for along in gland.place)
        found = _line(rng, gland.body, epithelium, ordered=ordered)
        nuclei += [(row + top, column + left, *rest) for row, column, *rest in found]
    _paint_nuclei(rng, tissue, nuclei)


def _line(rng: Generator, body: Mask, epithelium: Mask, *, ordered: bool) -> Iterator[Ellipse]:
    """Return a gland's nuclei, as many for its epithelium in either class: in a row, or half of them anywhere."""
    depth = soften(depth_inside(body), 2)
    count = round(epithelium.sum() / 215)
    rings, _ = cv2.findContours(
        (depth > rng.uniform(8.5, 10.5)).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    ring = np.concatenate([part[:, 0, ::-1] for part in rings])
    in_row = count if ordered else count // 2
    spots = ring[np.linspace(0, len(ring), in_row, endpoint=False).astype(int)]
    spots = spots + rng.normal(0, 0.8 if ordered else 2, spots.shape).round().astype(int)
    loose = np.argwhere(depth_inside(epithelium) > 5)  # noqa: PLR2004
    if not ordered and len(loose):
        spots = np.concatenate([spots, rng.choice(loose, count - in_row)])
    down, right = cv2.Sobel(depth, -1, 0, 1), cv2.Sobel(depth, -1, 1, 0)
    for row, column in spots:
        angle = np.arctan2(down[row, column], right[row, column]) + rng.normal(0, 0.15 if ordered else 0.7)
        yield row, column, rng.uniform(6.5, 8.5), rng.uniform(4.2, 5.4), angle


# --- tools --------------------------------------------------------------------------------------------------


def _paint_nuclei(rng: Generator, tissue: Tissue, nuclei: list[Ellipse], depth: float = 1.0) -> None:
    cover, stain = np.zeros((2, *tissue.gland.shape), np.float32)
    for row, column, along, across, angle in nuclei:
        ellipse = (round(column), round(row)), (round(along), round(across)), np.degrees(angle), 0, 360
        amount = depth * rng.uniform(0.8, 1.2)
        cv2.ellipse(cover, *ellipse, 1, -1)
        cv2.ellipse(stain, *ellipse, amount, -1)
        cv2.ellipse(stain, *ellipse, amount * 1.2, 1)
    stain = soften(stain, 0.9) * (1 + 0.15 * noise(rng, stain.shape, 4))
    tissue.lay(np.s_[:, :], soften(cover, 0.9), nucleus=stain)


def _spindle(rng: Generator, tissue: Tissue, spot: Spot) -> Ellipse:
    return (*spot, rng.uniform(7, 12), rng.uniform(2.2, 3.5), float(tissue.fibres[spot]))


def _blob(
    rng: Generator, tissue: Tissue, centre: Spot, axes: tuple[float, float], angle: float, *, ruffle: float
) -> tuple[tuple[slice, slice], Float32]:
    """Return where an uneven ellipse outside the glands lies, and how far it covers each pixel there, 0 to 1."""
    (row, column), reach = centre, round(max(axes) * 1.5) + 6
    top, left = max(0, row - reach), max(0, column - reach)
    place = np.s_[top : row + reach, left : column + reach]
    outline = np.zeros(tissue.gland[place].shape, np.float32)
    lengths = [max(1, round(axis)) for axis in axes]
    cv2.ellipse(outline, (column - left, row - top), lengths, np.degrees(angle), 0, 360, 1, -1)
    uneven = soften(outline, 2.5) + ruffle * noise(rng, outline.shape, 9)
    cover = np.clip((uneven - 0.5) * 5 + 0.5, 0, 1) * np.clip(tissue.clearance[place] - 5, 0, 1)
    return place, as_float(cover)


def _open_spots(rng: Generator, tissue: Tissue, away: float, count: int) -> list[Spot]:
    """Choose places at least so far from every gland; none where there is no room."""
    tries = rng.integers(0, tissue.gland.shape, (6 * count, 2))
    return [(int(row), int(column)) for row, column in tries if tissue.clearance[row, column] > away][:count]


def _scatter(rng: Generator, tissue: Tissue, centre: Spot, spread: float, *, count: int, away: float) -> list[Spot]:
    """Choose places about a centre, outside the glands."""
    around = rng.normal(centre, spread, (count, 2)).round().astype(int)
    height, width = tissue.gland.shape
    return [(int(y), int(x)) for y, x in around if 0 <= y < height and 0 <= x < width and tissue.clearance[y, x] > away]
