"""The elements of drawings: flat polygons in metres, colours, and simple shapes.

Coordinates are in metres, x to the right and y up, from the ground below the object's centre. One factor, the
picture sides per metre at the object's distance, then gives the perspective. Colours are those in full daylight;
parts with `glow` emit light and are not tinted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from colorsys import hsv_to_rgb
from random import Random
from typing import NamedTuple

Colour = tuple[float, float, float]
Point = tuple[float, float]


class Part(NamedTuple):
    """One polygon: its corners in metres, its colour (0 to 255), and whether it emits light."""

    points: Sequence[Point]
    colour: Colour
    glow: bool = False


class Setting(NamedTuple):
    """Properties of the scene that a drawing depends on."""

    front: bool
    """Draw vehicles from the front or back, not from the side."""
    night: bool
    """Light windows and lamps."""


Drawing = Callable[[Random, Setting], list[Part]]

LIT = (255, 214, 130)
GLASS = (92, 112, 128)
RUBBER = (28, 28, 32)
SKIN = ((241, 205, 177), (214, 164, 126), (160, 106, 70), (92, 60, 44))
_CIRCLE = tuple((math.cos(2 * math.pi * k / 16), math.sin(2 * math.pi * k / 16)) for k in range(16))


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour darkened (factor below 1) or lightened (above 1)."""
    return (min(colour[0] * factor, 255), min(colour[1] * factor, 255), min(colour[2] * factor, 255))


def paint(rng: Random) -> Colour:
    """Return a random colour of any hue, or nearly grey."""
    saturation = rng.choice((0.05, 0.25, 0.5, 0.75))
    red, green, blue = hsv_to_rgb(rng.random(), saturation, rng.uniform(0.25, 0.97))
    return (red * 255, green * 255, blue * 255)


def box(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    """Return an upright rectangle."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def ellipse(x: float, y: float, rx: float, ry: float) -> list[Point]:
    """Return an ellipse as a polygon of 16 corners."""
    return [(x + rx * c, y + ry * s) for c, s in _CIRCLE]


def bar(x0: float, y0: float, x1: float, y1: float, width: float, end_width: float | None = None) -> list[Point]:
    """Return a straight bar between two points, `width` thick, tapering to `end_width`."""
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    nx, ny = (y0 - y1) / length / 2, (x1 - x0) / length / 2
    end = width if end_width is None else end_width
    return [
        (x0 + nx * width, y0 + ny * width),
        (x0 - nx * width, y0 - ny * width),
        (x1 - nx * end, y1 - ny * end),
        (x1 + nx * end, y1 + ny * end),
    ]
