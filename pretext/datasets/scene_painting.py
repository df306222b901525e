"""How a composed scene of `scenes` becomes pixels: sky, ground and backdrop in NumPy, objects as polygons.

Everything is painted at twice the size and averaged, the backdrop from noise that is laid out on the ground in
metres (so that it shrinks towards the horizon), the objects from the farthest to the nearest.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pretext.datasets.scene_composition import LANE, PLACES, Light, Scene, Thing
from pretext.datasets.scene_shapes import Colour

Floats = NDArray[np.float32]

SURFACES: dict[str, tuple[Colour, ...]] = {
    "grass": ((96, 132, 62), (124, 142, 70), (166, 152, 92), (78, 112, 70), (226, 230, 236), (140, 116, 82)),
    "water": ((36, 82, 112), (48, 108, 118), (70, 96, 84), (96, 112, 122), (30, 62, 86)),
    "sand": ((214, 192, 150), (190, 172, 144), (150, 140, 126)),
    "square": ((168, 160, 150), (140, 138, 140), (178, 150, 128), (120, 132, 104)),
    "pavement": ((176, 172, 166), (150, 146, 146), (186, 168, 150)),
    "road": ((88, 88, 92), (70, 72, 78), (116, 110, 104)),
}
_TILE = 1024


class Painting(NamedTuple):
    """A painted scene."""

    pixels: NDArray[np.uint8]
    """H×W×3."""
    owner: NDArray[np.uint8]
    """H×W: 0 for the background, k + 1 where `scene.things[k]` is what one sees."""
    visible: list[float]
    """For each thing, the share of its pixels inside the picture that nothing hides."""


@lru_cache(maxsize=1)
def _noise() -> Floats:
    """Return cloudy noise in 0 to 1 that repeats without a seam, with amplitude falling as 1 / frequency."""
    white = np.random.default_rng(0).standard_normal((_TILE, _TILE))
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None, :]) * _TILE
    cloudy = np.fft.irfft2(np.fft.rfft2(white) / np.maximum(frequency, 3) ** 1.1, s=(_TILE, _TILE))
    return np.clip(cloudy / cloudy.std() * 0.2 + 0.5, 0, 1).astype(np.float32)


def _look_up(u: Floats, v: Floats) -> Floats:
    """Sample the noise at cells (v, u), which may be anywhere."""
    return _noise()[v.astype(np.int32) & (_TILE - 1), u.astype(np.int32) & (_TILE - 1)]


def _rgb(colour: Colour) -> Floats:
    return np.array(colour, dtype=np.float32)


def paint_scene(scene: Scene, size: int, grain: np.random.Generator) -> Painting:
    """Paint `scene` at `size`×`size` pixels, with film grain from `grain`."""
    side = 2 * size
    draw = Random(scene.seed)
    ground = _paint_backdrop(scene, side, draw)
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    owner = Image.new("L", (side, side))
    _paint_reflections(scene, picture, side)
    whole = _paint_things(scene, picture, owner, side)
    left = owner.histogram()
    visible = [left[k + 1] / whole[k] if whole[k] else 0.0 for k in range(len(scene.things))]
    owners = np.asarray(owner)[1::2, 1::2]
    pixels = _finish(scene, np.asarray(picture.reduce(2), dtype=np.float32), owners, draw, grain)
    return Painting(pixels, owners, visible)


def _paint_backdrop(scene: Scene, side: int, draw: Random) -> Floats:
    """Paint sky, what stands on the horizon, and the ground with the shadows that lie on it."""
    rows = round(scene.horizon * side)
    y = ((np.arange(side, dtype=np.float32) + 0.5) / side)[:, None]
    x = ((np.arange(side, dtype=np.float32) + 0.5) / side)[None, :]
    offset = (draw.randrange(_TILE), draw.randrange(_TILE))
    jitter = [draw.uniform(-14, 14) for _ in range(3)]
    sky_low = _rgb(scene.light.sky_low) + _rgb((jitter[0], jitter[1], jitter[2])) * 0.5
    disc_x = draw.random()
    canvas = np.empty((side, side, 3), dtype=np.float32)
    canvas[:rows] = _sky(scene, x, y[:rows], sky_low, disc_x, offset, draw)
    _paint_horizon(scene, canvas[:rows], x, y[:rows], sky_low, offset, draw)
    ground = _ground(scene, x, y[rows:], sky_low, disc_x, offset, draw)
    shadows = _shadows(scene, side, draw)
    ground *= 1 - shadows[rows:, :, None]
    distance = scene.camera / np.maximum(y[rows:] - scene.horizon, 1e-3)
    haze = 1 - np.exp(-distance / scene.light.visibility)
    canvas[rows:] = ground + (sky_low - ground) * haze[..., None]
    return canvas


def _sky(
    scene: Scene, x: Floats, y: Floats, low: Floats, disc_x: float, offset: tuple[int, int], draw: Random
) -> Floats:
    height = scene.horizon - y
    blend = np.minimum(height / 0.5, 1) ** 0.7
    sky = np.broadcast_to((low + (_rgb(scene.light.sky_top) - low) * blend[..., None]), (len(y), x.size, 3)).copy()
    far = 0.25 / (height + 0.12)
    clouds = _look_up((x - 0.5) * far * 90 + offset[0], far * 160 + offset[1] + 0 * x)
    cover = np.clip((clouds - draw.uniform(0.35, 0.75)) * 4, 0, 0.85)[..., None]
    white = low * 0.5 + (128 if not scene.light.night else 20)
    sky += (white - sky) * cover
    if scene.light.disc is not None:
        radius = np.hypot(x - disc_x, y - (scene.horizon - draw.uniform(0.06, 0.3)))
        shine = np.exp(-radius / 0.12)[..., None] * 0.5 + np.clip((0.035 - radius) * 60, 0, 1)[..., None]
        sky += (_rgb(scene.light.disc) - sky) * np.minimum(shine, 1) * (1 - cover * 0.7)
    return sky


def _paint_horizon(
    scene: Scene, sky: Floats, x: Floats, y: Floats, low: Floats, offset: tuple[int, int], draw: Random
) -> None:
    """Paint hills, mountains, a wood, a coast or a city over the sky's lower rows, in place."""
    if scene.backdrop == "none" or not len(sky):
        return
    column = x[0] * 128 + offset[0]
    row = np.full_like(column, offset[1])
    colours = {
        "hills": (84, 116, 78), "mountains": (104, 112, 130), "forest": (52, 78, 56), "coast": (96, 110, 96),
        "city": (118, 108, 108),
    }  # fmt: skip
    steep = {"hills": 0.25, "mountains": 0.6, "forest": 0.12, "coast": 0.08, "city": 0.0}[scene.backdrop]
    base = {"hills": 0.06, "mountains": 0.1, "forest": 0.05, "coast": 0.02, "city": 0.05}[scene.backdrop]
    ridge = base + steep * (_look_up(column, row) - 0.5)
    if scene.backdrop == "forest":
        ridge = ridge + 0.03 * (_look_up(column * 5, row + 9) - 0.5) + 0.012 * np.sin(column * 1.7)
    if scene.backdrop == "city":
        block = np.floor(column / draw.uniform(7, 12))
        ridge = 0.03 + 0.22 * _look_up(block * 37, row) ** 2
    height = scene.horizon - y
    tone = _rgb(colours[scene.backdrop]) * _rgb(scene.light.tint)
    tone = tone * (0.85 + 0.5 * (_look_up(x * 300 + offset[0], y * 300 + offset[1])[..., None] - 0.3))
    if scene.backdrop == "city":
        tone = tone * (0.75 + 0.5 * _look_up(block * 91, row + 5))[None, :, None]
        pane = (np.mod(column * 1.1, 2) < 1)[None, :] & (np.mod(height * 110, 2) < 1)
        on = _look_up(np.floor(column * 0.55)[None, :] * 77, np.floor(height * 55) * 131) > 0.5
        window = _rgb((255, 206, 120)) if scene.light.night else tone * 0.6
        tone = np.where((pane & on)[..., None], window, tone)
    haze = min(0.75, 30 / scene.light.visibility + 0.25)
    tone = tone + (low - tone) * haze
    mask = np.clip((ridge[None, :] - height) * 200, 0, 1)[..., None]
    sky += (tone - sky) * mask


def _ground(
    scene: Scene, x: Floats, y: Floats, low: Floats, disc_x: float, offset: tuple[int, int], draw: Random
) -> Floats:
    """Paint the bands of ground, lit but without shadow and haze."""
    z = np.minimum(scene.camera / np.maximum(y - scene.horizon, 1e-3), 400)
    u, v = (x - scene.vanishing) * z, z + 0 * x
    coarse = _look_up(u * 2 + offset[1], v * 2 + offset[0]) - 0.5
    fine = (_look_up(u * 23 + offset[0], v * 23 + offset[1]) - 0.5) * np.minimum(6 / z, 1)
    tint = _rgb(scene.light.tint)
    ground = np.zeros((len(y), x.size, 3), dtype=np.float32)
    colours = {surface: draw.choice(choices) for surface, choices in SURFACES.items()}
    for k, (surface, start) in enumerate(scene.bands):
        base = _rgb(colours[surface]) * tint
        if surface == "water":
            ripple = _look_up(u * 5 + offset[0], v * 28 + offset[1]) - 0.5
            mirror = np.clip(0.75 - (y - scene.horizon) * 0.9, 0.15, 0.75) + ripple * 0.5
            band = base * (1 + coarse[..., None] * 0.3) * 1.0
            band = band + (low * 0.9 - band) * mirror[..., None]
            if scene.light.disc is not None:
                path = np.exp(-(((x - disc_x) / 0.09) ** 2)) * np.clip(ripple * 5 + 0.4, 0, 1)
                band = band + (_rgb(scene.light.disc) - band) * path[..., None] * 0.8
        else:
            relief = {"grass": 1.0, "sand": 0.5, "road": 0.35}.get(surface, 0.3)
            band = base * (1 + relief * (coarse * 0.7 + fine * 1.2)[..., None])
            if surface in ("square", "pavement"):
                joint = ((np.mod(u, 0.8) < 0.07) | (np.mod(v, 0.8) < 0.07)) & (z < 12)
                band = band * np.where(joint, 0.82, 1)[..., None]
            if surface == "road":
                end = scene.bands[k + 1][1] if k + 1 < len(scene.bands) else 1.15
                line = (np.abs(y - (start + end) / 2 + 0.02) < 0.006) & (np.mod(u, 2.6) < 1.5)
                band = np.where(line[..., None], _rgb((225, 222, 205)) * tint, band)
        edge = start + (0.03 * (_noise()[k, : x.size][None, :] * 0) if surface in ("road", "pavement") else 0.0)
        ground = np.where((y >= edge)[..., None], band, ground)
    if PLACES[scene.place].lane:
        asphalt = _rgb(colours["road"]) * tint * (1 + 0.35 * (coarse * 0.6 + fine)[..., None])
        across = np.abs(u)
        white = ((across < 0.1) & (np.mod(v, 5) < 2.4)) | (np.abs(across - LANE + 0.3) < 0.09)
        asphalt = np.where(white[..., None], _rgb((228, 226, 212)) * tint, asphalt)
        ground = np.where((across < LANE)[..., None], asphalt, ground)
    return ground


def _shadows(scene: Scene, side: int, draw: Random) -> Floats:
    """Project every object on the ground, away from the sun; return how dark each pixel gets, 0 to 1."""
    layer = Image.new("L", (side, side))
    pen = ImageDraw.Draw(layer)
    slope, depth = draw.uniform(-1.2, 1.2), draw.uniform(0.15, 0.8) * draw.choice((-1, 1))
    cast, contact = round(255 * scene.light.shadow), round(255 * max(scene.light.shadow, 0.3))
    for thing in scene.things:
        if thing.name in ("bird", "boat"):
            continue
        left, _, right, _ = thing.extent
        z = 1 / thing.scale
        for part in thing.parts:
            points = np.array(part.points, dtype=np.float32)
            away = np.maximum(z + points[:, 1] * depth, z * 0.6)
            px = 0.5 + ((thing.x - 0.5) * z + points[:, 0] + points[:, 1] * slope) / away
            py = scene.horizon + scene.camera / away
            pen.polygon((np.stack([px, py], 1) * side).ravel().tolist(), fill=cast)
        feet = [px for part in thing.parts for px, py in part.points if py < 0.3]
        left, right = min(feet), max(feet)
        flat = 0.25 * (right - left) * min((thing.y - scene.horizon) * 1.2, 0.5) * thing.scale
        pen.ellipse(
            [
                (thing.x + left * thing.scale * 1.05) * side,
                (thing.y - flat) * side,
                (thing.x + right * thing.scale * 1.05) * side,
                (thing.y + flat) * side,
            ],
            fill=contact,
        )
    return np.asarray(layer, dtype=np.float32) / 255


def _polygons(thing: Thing, side: int, *, stretch: float = 1.0, end: float = 9.0) -> list[list[float]]:
    """Return the corners of every part in pixels; a negative `stretch` mirrors the object below its ground line."""
    counts = np.cumsum([len(part.points) for part in thing.parts])[:-1]
    points = np.array([point for part in thing.parts for point in part.points], dtype=np.float32)
    points = points * _rgb_pair(thing.scale, -thing.scale * stretch) + _rgb_pair(thing.x, thing.y)
    points[:, 1] = np.minimum(points[:, 1], end)
    return [corners.ravel().tolist() for corners in np.split(points * side, counts)]


def _rgb_pair(a: float, b: float) -> Floats:
    return np.array((a, b), dtype=np.float32)


def _lit(light: Light, colour: Colour, glow: bool, haze: float) -> tuple[int, int, int]:
    tint = (1.0, 1.0, 1.0) if glow else light.tint
    mixed = [c * t * (1 - haze) + low * haze for c, t, low in zip(colour, tint, light.sky_low, strict=True)]
    return (min(int(mixed[0]), 255), min(int(mixed[1]), 255), min(int(mixed[2]), 255))


def _haze(scene: Scene, thing: Thing) -> float:
    return float(1 - np.exp(-1 / thing.scale / scene.light.visibility))


def _paint_reflections(scene: Scene, picture: Image.Image, side: int) -> None:
    pen = ImageDraw.Draw(picture, "RGBA")
    ends = [*[start for _, start in scene.bands[1:]], 1.0]
    for thing in scene.things:
        if thing.name == "boat":
            end = min(end for end in ends if end > thing.y)
            haze = _haze(scene, thing)
            for part, corners in zip(thing.parts, _polygons(thing, side, stretch=-0.8, end=end), strict=True):
                pen.polygon(corners, fill=(*_lit(scene.light, part.colour, part.glow, haze), 90))


def _paint_things(scene: Scene, picture: Image.Image, owner: Image.Image, side: int) -> list[int]:
    """Paint the objects and, on `owner`, whose every pixel is; return how many pixels each has before it is hidden."""
    pen, mark = ImageDraw.Draw(picture), ImageDraw.Draw(owner)
    whole = []
    for number, thing in enumerate(scene.things, 1):
        haze = _haze(scene, thing)
        for part, corners in zip(thing.parts, _polygons(thing, side), strict=True):
            pen.polygon(corners, fill=_lit(scene.light, part.colour, part.glow, haze))
            mark.polygon(corners, fill=number)
        whole.append(owner.histogram()[number])
    return whole


def _finish(
    scene: Scene, pixels: Floats, owner: NDArray[np.uint8], draw: Random, grain: np.random.Generator
) -> NDArray[np.uint8]:
    """Roughen the objects' flat colours, let lamps shine, and add grain."""
    size = len(pixels)
    steps = np.arange(size, dtype=np.float32) / size
    rough = _look_up(steps[None, :] * 190 + draw.randrange(_TILE), steps[:, None] * 190 + draw.randrange(_TILE))
    pixels = pixels * (1 + 0.55 * (rough - 0.5) * (owner > 0))[..., None]
    if scene.light.night:
        for thing in scene.things:
            if thing.name == "lamp":
                _, top, _, low = thing.box
                far = np.hypot(steps[None, :] - thing.x, steps[:, None] - (top * 0.85 + low * 0.15))
                pixels += np.exp(-far / (0.35 * (low - top)))[..., None] * _rgb((110, 84, 40))
    pixels += grain.standard_normal(pixels.shape, dtype=np.float32) * 3
    return pixels.clip(0, 255).astype(np.uint8)
