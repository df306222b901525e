"""Paint the backdrop of a scene in NumPy: sky, the outline on the horizon, and the ground.

Ground textures are noise sampled in metres on the ground, so they shrink towards the horizon. Pixel grids are
`x` (1×side) and `y` (rows×1), in picture sides: 0 to 1, y down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretext.datasets.scenery.composition import Scene
from pretext.datasets.scenery.places import LANE, PLACES
from pretext.datasets.scenery.shapes import Colour

Floats = NDArray[np.floating[Any]]

SURFACES: Mapping[str, tuple[Colour, ...]] = {
    "grass": ((96, 132, 62), (124, 142, 70), (166, 152, 92), (78, 112, 70), (226, 230, 236), (140, 116, 82)),
    "water": ((36, 82, 112), (48, 108, 118), (70, 96, 84), (96, 112, 122), (30, 62, 86)),
    "sand": ((214, 192, 150), (190, 172, 144), (150, 140, 126)),
    "square": ((168, 160, 150), (140, 138, 140), (178, 150, 128), (120, 132, 104)),
    "pavement": ((176, 172, 166), (150, 146, 146), (186, 168, 150)),
    "road": ((88, 88, 92), (70, 72, 78), (116, 110, 104)),
}
RELIEF: Mapping[str, float] = {"grass": 1.0, "sand": 0.5, "square": 0.35, "pavement": 0.3, "road": 0.35}


@dataclass(frozen=True)
class Ridge:
    """An outline on the horizon: its colour, base height, and waves as (waves per picture, amplitude)."""

    colour: Colour
    base: float
    waves: tuple[tuple[float, float], ...]
    pointed: bool = False

    @property
    def highest(self) -> float:
        """Maximum height of the outline above the horizon, in picture sides."""
        return self.base + sum(height for _, height in self.waves)


RIDGES: Mapping[str, Ridge] = {
    "hills": Ridge((88, 118, 80), 0.07, ((0.9, 0.035), (2.2, 0.02), (5.1, 0.006))),
    "mountains": Ridge((104, 112, 130), 0.0, ((1.3, 0.12), (3.1, 0.07), (7.3, 0.03), (17, 0.012)), pointed=True),
    "forest": Ridge((52, 78, 56), 0.01, ((2.3, 0.03), (13, 0.025), (29, 0.025), (47, 0.015)), pointed=True),
    "coast": Ridge((96, 110, 96), -0.005, ((0.7, 0.035), (2.7, 0.012))),
    "city": Ridge((122, 112, 110), 0.2, ()),
}
_TILE = 1024


@dataclass(frozen=True)
class Weather:
    """Random details of a composed scene that only painting needs."""

    low: Floats
    """Colour of the haze and of the sky at the horizon."""
    disc: tuple[float, float]
    """Centre x, y of the sun or moon, drawn only if the light has one."""
    slope: float
    """Length to the right of the shadow of one metre of height, in metres."""
    depth: float
    """Length away from the viewer of the same shadow, in metres."""
    cover: float
    """Noise threshold of clouds; lower gives more clouds."""
    offset: tuple[int, int]
    """Row and column in the noise where this picture begins."""
    phases: tuple[float, ...]
    """Phases of the waves of the ridge, in turns."""
    heights: tuple[float, ...]
    """Heights of the houses of a city on the horizon, in picture sides."""
    colours: Mapping[str, Colour]
    """Colour of each surface."""


def weather(scene: Scene) -> Weather:
    """Draw the random details of `scene` from its own seed."""
    rng = Random(scene.seed)
    low = np.array(scene.light.sky_low, dtype=np.float32) + np.array(
        [rng.uniform(-8, 8) for _ in range(3)], dtype=np.float32
    )
    disc = (rng.random(), scene.horizon - rng.uniform(0.06, 0.3))
    slope, depth = rng.uniform(-1.2, 1.2), rng.uniform(0.15, 0.8) * rng.choice((-1, 1))
    if scene.light.disc is not None:  # a sun in view casts shadows towards the viewer
        slope, depth = (0.5 - disc[0]) * 1.5, -abs(depth)
    return Weather(
        low=low,
        disc=disc,
        slope=slope,
        depth=depth,
        cover=rng.uniform(0.35, 0.9),
        offset=(rng.randrange(_TILE), rng.randrange(_TILE)),
        phases=tuple(rng.random() for _ in range(5)),
        heights=tuple(0.03 + 0.16 * rng.random() ** 2 for _ in range(rng.randrange(9, 18))),
        colours={surface: rng.choice(colours) for surface, colours in SURFACES.items()},
    )


@lru_cache(maxsize=2)
def _noise(power: float) -> Floats:
    """Return seamlessly repeating noise in 0 to 1 whose amplitude falls as frequency^-power."""
    white = np.random.default_rng(0).standard_normal((_TILE, _TILE))
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None, :]) * _TILE
    cloudy = np.fft.irfft2(np.fft.rfft2(white) / np.maximum(frequency, 4) ** power, s=(_TILE, _TILE))
    return np.clip(cloudy / cloudy.std() * 0.2 + 0.5, 0, 1).astype(np.float32)


def texture(u: Floats, v: Floats, offset: tuple[int, int], *, smooth: bool = False) -> Floats:
    """Sample the noise at cells (v, u) of any range; the values are 0 to 1 around 0.5."""
    rows = (v + offset[0]).astype(np.intp) & (_TILE - 1)
    columns = (u + offset[1]).astype(np.intp) & (_TILE - 1)
    return _noise(1.5 if smooth else 1.0).take(rows * _TILE + columns)


def colour(value: Colour) -> Floats:
    """Return a colour as an array of three values."""
    return np.array(value, dtype=np.float32)


def paint_backdrop(scene: Scene, sky: Weather, side: int) -> Floats:
    """Paint everything except objects and shadows, with light and haze: side×side×3, 0 to 255."""
    rows = round(scene.horizon * side)
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = grid[None, :], grid[:, None]
    canvas = np.empty((side, side, 3), dtype=np.float32)
    canvas[:rows] = _sky(scene, sky, x, y[:rows])
    if scene.backdrop != "none":
        top = max(rows - math.ceil(RIDGES[scene.backdrop].highest * side) - 1, 0)
        _paint_ridge(scene, sky, x, y[top:rows], canvas[top:rows])
    ground = canvas[rows:]
    _paint_ground(scene, sky, x, y[rows:], ground)
    distance = scene.camera / (y[rows:] - scene.horizon + 1e-3)
    clear = np.exp(-distance / scene.light.visibility)[..., None]
    ground *= clear
    ground += sky.low * (1 - clear)
    return np.clip(canvas, 0, 255, out=canvas)


def _sky(scene: Scene, sky: Weather, x: Floats, y: Floats) -> Floats:
    height = scene.horizon - y
    blend = np.minimum(height / 0.5, 1)[..., None] ** 0.7
    clear = sky.low + (colour(scene.light.sky_top) - sky.low) * blend
    far = 0.25 / (height + 0.1)
    clouds = texture((x - 0.5) * far * 260, far * 330, sky.offset, smooth=True)
    cover = np.clip((clouds - sky.cover) * 4, 0, 0.85)[..., None]
    white = sky.low * 0.5 + (20 if scene.light.night else 128)
    painted = clear + (white - clear) * cover
    if scene.light.disc is not None:
        radius = np.hypot(x - sky.disc[0], y - sky.disc[1])[..., None]
        shine = np.minimum(np.exp(-radius / 0.12) * 0.5 + np.clip((0.035 - radius) * 60, 0, 1), 1)
        painted += (colour(scene.light.disc) - painted) * shine * (1 - cover * 0.7)
    return painted


def _paint_ridge(scene: Scene, sky: Weather, x: Floats, y: Floats, canvas: Floats) -> None:
    """Paint hills, mountains, a forest, a coast or a city over the lowest rows of the sky, in place."""
    ridge = RIDGES[scene.backdrop]
    outline = np.full_like(x, ridge.base)
    for (frequency, amplitude), phase in zip(ridge.waves, sky.phases, strict=False):
        turn = x * frequency + phase
        wave = np.abs(2 * np.mod(turn, 1) - 1) if ridge.pointed else np.sin(2 * np.pi * turn)
        outline += amplitude * wave
    grain = texture(x * 300, y * 300, sky.offset)[..., None]
    tone = colour(ridge.colour) * colour(scene.light.tint) * (0.6 + 0.7 * grain)
    height = scene.horizon - y
    if scene.backdrop == "city":
        block = np.mod(x * len(sky.heights) + sky.phases[0], len(sky.heights)).astype(np.int32)
        outline = np.array(sky.heights, dtype=np.float32)[block]
        tone = tone * (0.7 + 0.5 * np.mod(block * 0.37, 1))[..., None]
        column, floor = x * 70, height * 55
        pane = (np.mod(column, 1) < 0.5) & (np.mod(floor, 1) < 0.55) & (height < outline - 0.012)
        pane &= texture(np.floor(column) * 77, np.floor(floor) * 131, sky.offset) > 0.5
        window = colour((255, 206, 120)) if scene.light.night else tone * 0.55
        tone = np.where(pane[..., None], window, tone)
    tone = tone + (sky.low - tone) * min(0.75, 30 / scene.light.visibility + 0.2)
    canvas += (tone - canvas) * np.clip((outline - height) * 200, 0, 1)[..., None]


def _paint_ground(scene: Scene, sky: Weather, x: Floats, y: Floats, canvas: Floats) -> None:
    """Paint the bands of ground, and the road to the horizon over them, in place."""
    z = np.minimum(scene.camera / (y - scene.horizon + 1e-3), 400)
    u = (x - scene.vanishing) * z
    tint = colour(scene.light.tint)
    mark = colour((226, 224, 210)) * tint
    ends = [*[start for _, start in scene.bands[1:]], 1.0]
    for (surface, start), end in zip(scene.bands, ends, strict=True):
        rows = slice(int(np.searchsorted(y[:, 0], start)), int(np.searchsorted(y[:, 0], end)))
        base = colour(sky.colours[surface]) * tint
        if surface == "water":
            canvas[rows] = _water(scene, sky, base, x=x, y=y[rows], u=u[rows], z=z[rows])
            continue
        canvas[rows] = base * (1 + RELIEF[surface] * _relief(u[rows], z[rows], sky))[..., None]
        if surface in ("square", "pavement"):
            joint = (np.mod(u[rows], 0.8) < 0.07) | (np.mod(z[rows], 0.8) < 0.07)
            canvas[rows][joint & (z[rows] < 12)] *= 0.82
        elif surface == "road":
            middle = np.abs(y[rows] - (start + end) / 2) < 0.007
            canvas[rows][middle & (np.mod(u[rows], 2.6) < 1.5)] = mark
    if PLACES[scene.place].lane:
        across = np.abs(u)
        lane = across < LANE
        relief = 1 + RELIEF["road"] * _relief(u[lane], np.broadcast_to(z, u.shape)[lane], sky)
        canvas[lane] = colour(sky.colours["road"]) * tint * relief[:, None]
        canvas[((across < 0.1) & (np.mod(z, 5) < 2.4)) | (np.abs(across - LANE + 0.3) < 0.09)] = mark


def _relief(u: Floats, z: Floats, sky: Weather) -> Floats:
    """Return brightness changes around 0, patches plus grain; `u` is metres to the right, `z` metres away."""
    patches = texture(u * 14, z * 14, sky.offset, smooth=True) - 0.5
    return patches * 0.6 + (texture(u * 40, z * 40, sky.offset) - 0.5) * np.minimum(6.6 / z, 1.1)


def _water(scene: Scene, sky: Weather, base: Floats, *, x: Floats, y: Floats, u: Floats, z: Floats) -> Floats:
    """Return water: its own colour nearby, more sky colour far away, ripples, and the sun's reflection."""
    ripple = texture(u * 9, z * 50, sky.offset) - 0.5
    mirror = np.clip(0.75 - (y - scene.horizon) * 0.9, 0.15, 0.75) + ripple * 0.5
    water = base + (sky.low * 0.9 - base) * mirror[..., None]
    if scene.light.disc is not None:
        path = np.exp(-(((x - sky.disc[0]) / 0.09) ** 2)) * np.clip(ripple * 5 + 0.4, 0, 0.8)
        water += (colour(scene.light.disc) - water) * path[..., None]
    return water
