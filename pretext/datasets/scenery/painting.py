"""Paint a composed scene: shadows and objects over the backdrop.

Everything is painted at twice the size and averaged. Objects are painted from the farthest to the nearest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from pretext.datasets.scenery.backdrop import Floats, Weather, colour, paint_backdrop, texture, weather
from pretext.datasets.scenery.composition import Scene, Thing


class Painting(NamedTuple):
    """A painted scene."""

    pixels: NDArray[np.uint8]
    """Pixels in RGB, H×W×3."""
    owner: NDArray[np.uint8]
    """Which object each pixel shows, H×W: 0 for the backdrop, k + 1 for `scene.things[k]`."""
    visible: list[float]
    """Share of each object's pixels inside the picture that no other object hides."""


def paint_scene(scene: Scene, size: int, grain: np.random.Generator) -> Painting:
    """Paint `scene` at `size`×`size` pixels, with film grain from `grain`."""
    side = 2 * size
    sky = weather(scene)
    picture = Image.fromarray(paint_backdrop(scene, sky, side).astype(np.uint8))
    picture = ImageChops.multiply(picture, _shadows(scene, sky, side).convert("RGB"))
    owner = Image.new("L", (side, side))
    _paint_reflections(scene, picture, side)
    whole = _paint_things(scene, picture, owner, side)
    left = owner.histogram()
    visible = [left[k + 1] / pixels if pixels else 0.0 for k, pixels in enumerate(whole)]
    owners = np.asarray(owner)[1::2, 1::2]
    pixels = _finish(scene, sky, np.asarray(picture.reduce(2), dtype=np.float32), owners, grain)
    return Painting(pixels, owners, visible)


def _corners(thing: Thing, points: Floats, side: int) -> list[list[float]]:
    """Split an object's points, in picture sides, into the corners of each part, in pixels."""
    flat: list[float] = (points * side).ravel().tolist()
    corners, start = [], 0
    for part in thing.parts:
        end = start + 2 * len(part.points)
        corners.append(flat[start:end])
        start = end
    return corners


def _in_place(thing: Thing, stretch: float = 1.0) -> Floats:
    """Return the points of an object in picture sides; a negative `stretch` mirrors them at its ground line."""
    scale = np.array((thing.scale, -thing.scale * stretch), dtype=np.float32)
    return thing.points * scale + np.array((thing.x, thing.y), dtype=np.float32)


def _shadows(scene: Scene, sky: Weather, side: int) -> Image.Image:
    """Project every object on the ground, away from the sun; return the remaining light, 0 to 255."""
    layer = Image.new("L", (side, side), 255)
    pen = ImageDraw.Draw(layer)
    cast = round(255 * (1 - scene.light.shadow))
    contact = min(cast, 178)
    on_ground = [thing for thing in scene.things if thing.name not in ("bird", "boat")]
    for thing in on_ground:
        right, up = thing.points[:, 0], thing.points[:, 1]
        z = 1 / thing.scale
        away = np.maximum(z + up * sky.depth, z * 0.6)
        px = 0.5 + ((thing.x - 0.5) * z + right + up * sky.slope) / away
        py = scene.horizon + scene.camera / away
        for corners in _corners(thing, np.stack([px, py], 1), side):
            pen.polygon(corners, fill=cast)
    for thing in on_ground:
        feet = thing.x + thing.points[thing.points[:, 1] < 0.3, 0] * thing.scale
        first, last, y = float(feet.min()) * side, float(feet.max()) * side, thing.y * side
        flat = 0.25 * (last - first) * min((thing.y - scene.horizon) * 1.2, 0.5)
        pen.ellipse([first - flat, y - flat, last + flat, y + flat], fill=contact)
    return layer


def _inks(scene: Scene, thing: Thing) -> list[tuple[int, ...]]:
    """Return the colour of each part under the scene's light and haze."""
    light = scene.light
    haze = 1 - np.exp(-1 / thing.scale / light.visibility)
    tint = np.array([(1.0, 1.0, 1.0) if part.glow else light.tint for part in thing.parts])
    lit = np.array([part.colour for part in thing.parts]) * tint
    hazy = lit + (np.array(light.sky_low) - lit) * haze
    return [tuple(ink) for ink in hazy.clip(0, 255).astype(int).tolist()]


def _paint_reflections(scene: Scene, picture: Image.Image, side: int) -> None:
    """Mirror the boats in the water, clipped to the water's edge."""
    pen = ImageDraw.Draw(picture, "RGBA")
    ends = [*[start for _, start in scene.bands[1:]], 1.0]
    for thing in scene.things:
        if thing.name == "boat":
            points = _in_place(thing, stretch=-0.8)
            points[:, 1] = np.minimum(points[:, 1], min(end for end in ends if end > thing.y))
            for ink, corners in zip(_inks(scene, thing), _corners(thing, points, side), strict=True):
                pen.polygon(corners, fill=(*ink, 90))


def _paint_things(scene: Scene, picture: Image.Image, owner: Image.Image, side: int) -> list[int]:
    """Paint the objects, and their numbers on `owner`; return each object's pixel count before others hide it."""
    pen, mark = ImageDraw.Draw(picture), ImageDraw.Draw(owner)
    whole = []
    for number, thing in enumerate(scene.things, 1):
        for ink, corners in zip(_inks(scene, thing), _corners(thing, _in_place(thing), side), strict=True):
            pen.polygon(corners, fill=ink)
            mark.polygon(corners, fill=number)
        whole.append(owner.histogram()[number])
    return whole


def _finish(
    scene: Scene, sky: Weather, pixels: Floats, owner: NDArray[np.uint8], grain: np.random.Generator
) -> NDArray[np.uint8]:
    """Add shading and texture to the flat colours, the light of lamps at night, and film grain."""
    size = len(pixels)
    steps = np.arange(size, dtype=np.float32) / size
    x, y = steps[None, :], steps[:, None]
    relief = 0.35 * (texture(x * 190, y * 190, sky.offset) - 0.5)
    bright = -0.5 * scene.light.shadow * np.sign(sky.slope)
    for number, thing in enumerate(scene.things, 1):
        left, _, right, _ = thing.box
        columns = slice(max(int(left * size), 0), max(int(right * size) + 2, 0))
        across = (steps[columns] - (left + right) / 2) / (right - left)
        relief[:, columns] += across * bright * (owner[:, columns] == number)
    pixels = pixels * (1 + relief * (owner > 0))[..., None]
    if scene.light.night:
        for thing in scene.things:
            if thing.name == "lamp":
                _, top, _, low = thing.box
                far = np.hypot(x - thing.x, y - (top * 0.85 + low * 0.15))
                pixels += np.exp(-far / (0.35 * (low - top)))[..., None] * colour((110, 84, 40))
    pixels += grain.standard_normal(pixels.shape, dtype=np.float32) * 3
    return pixels.clip(0, 255).astype(np.uint8)
