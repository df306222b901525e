"""Drawings of house, lamp and tree; see `shapes` for the units."""

from __future__ import annotations

from random import Random

from pretext.datasets.scenery.shapes import (
    GLASS,
    LIT,
    Colour,
    Part,
    Point,
    Setting,
    bar,
    box,
    ellipse,
    paint,
    shade,
)


def _window(rng: Random, setting: Setting, frame: Colour, pane: tuple[float, float, float, float]) -> list[Part]:
    """Draw a window, lit or not; `pane` is its left, bottom, right and top."""
    lit = setting.night and rng.random() < 0.6
    left, bottom, right, top = pane
    middle = (left + right) / 2
    return [
        Part(box(left - 0.1, bottom - 0.12, right + 0.1, top + 0.1), frame),
        Part(box(*pane), LIT if lit else shade(GLASS, rng.uniform(0.6, 1.1)), lit),
        Part(bar(middle, bottom, middle, top, 0.1), frame),
    ]


def _gable_roof(left: float, corner: float, right: float, *, eaves: float, rise: float, roof: Colour) -> list[Part]:
    """Draw a roof with the gable in front; its slope extends back over the side wall."""
    peak, ridge = (left + corner) / 2, eaves + rise
    far = (right + 0.3, eaves - 0.15), (right - (corner - left) * 0.3, ridge)
    return [
        Part([(corner + 0.3, eaves - 0.25), *far, (peak, ridge + 0.1)], shade(roof, 0.82)),
        Part(bar(left - 0.35, eaves - 0.3, peak, ridge + 0.05, 0.4), roof),
        Part(bar(peak, ridge + 0.05, corner + 0.35, eaves - 0.3, 0.4), roof),
        Part(ellipse(peak, eaves + rise * 0.35, 0.4, 0.4), shade(GLASS, 0.8)),
    ]


def _long_roof(left: float, right: float, eaves: float, rise: float, roof: Colour) -> list[Part]:
    """Draw a roof with the long side in front."""
    low, ridge, row = eaves - 0.1, eaves + rise, eaves + rise * 0.35
    return [
        Part([(left - 0.4, low), (right + 0.4, low), (right - 0.7, ridge), (left + 0.7, ridge)], roof),
        Part(bar(left - 0.1, row, right + 0.1, row, 0.12), shade(roof, 0.8)),
    ]


def _mansard(left: float, right: float, eaves: float, roof: Colour) -> list[Part]:
    """Draw the low roof of a town house above its cornice."""
    low, top = eaves + 0.4, eaves + 1.3
    return [
        Part(box(left - 0.2, eaves - 0.1, right + 0.2, low), shade(roof, 0.9)),
        Part([(left, low), (right, low), (right - 0.6, top), (left + 0.6, top)], shade(roof, 1.1)),
    ]


ROOFS: tuple[Colour, ...] = ((150, 70, 52), (96, 60, 50), (84, 88, 98), (130, 110, 84))


def house(rng: Random, setting: Setting) -> list[Part]:
    """Draw a cottage, a gabled house or a town house of several floors, with door, windows and roof."""
    wall, roof = shade(paint(rng), rng.choice((1.0, 1.25))), rng.choice((*ROOFS, paint(rng)))
    frame = rng.choice(((244, 240, 232), (70, 54, 44), shade(wall, 0.6)))
    kind = rng.choice(("gable", "gable", "cottage", "town"))
    floors = {"gable": rng.choice((1, 2)), "cottage": 1, "town": rng.choice((2, 3))}[kind]
    front = rng.uniform(7.5, 9.5) if kind == "cottage" else rng.uniform(4.6, 6.0)
    side = rng.uniform(2.2, 4.0) if kind == "gable" else rng.choice((0.0, rng.uniform(1.2, 2.0)))
    eaves, rise = 2.9 * floors, rng.uniform(1.9, 2.8)
    left, corner, right = -(front + side) / 2, (front - side) / 2, (front + side) / 2
    parts: list[Part] = []
    if kind != "town" and rng.random() < 0.7:
        stack = corner + (side * 0.35 if kind == "gable" else -front * rng.uniform(0.05, 0.4))
        parts.append(Part(box(stack - 0.4, eaves, stack + 0.4, eaves + rise + 0.75), (132, 76, 62)))
    if side:
        parts.append(Part([(corner, 0), (right, 0.1), (right, eaves), (corner, eaves)], shade(wall, 0.68)))
    parts.append(Part(box(left, 0, corner, eaves), wall))
    if kind == "gable":
        parts.append(Part([(left, eaves), (corner, eaves), ((left + corner) / 2, eaves + rise)], wall))
        parts += _gable_roof(left, corner, right, eaves=eaves, rise=rise, roof=roof)
        x = corner + side * 0.35
        parts += _window(rng, setting, shade(frame, 0.8), (x, 1.0, x + 0.8, 2.2))
    elif kind == "cottage":
        parts += _long_roof(left, right, eaves, rise, roof)
    else:
        parts += _mansard(left, right, eaves, roof)
    return parts + _openings(rng, setting, frame, (left, corner), floors)


def _openings(rng: Random, setting: Setting, frame: Colour, front: tuple[float, float], floors: int) -> list[Part]:
    """Draw the door and a grid of windows; `front` is the left and right edge of the front wall."""
    parts = []
    wide = front[1] - front[0]
    columns = 2 if wide < 5.2 else 3
    door = rng.randrange(columns)
    for floor in range(floors):
        for column in range(columns):
            x, y = front[0] + (column + 0.5) * wide / columns, 2.9 * floor
            if floor == 0 and column == door:
                parts.append(Part(box(x - 0.6, 0, x + 0.6, 2.25), frame))
                parts.append(Part(box(x - 0.48, 0, x + 0.48, 2.1), paint(rng)))
            else:
                parts += _window(rng, setting, frame, (x - 0.5, y + 0.95, x + 0.5, y + 2.25))
    return parts


def _lantern(tall: float, post: float, iron: Colour, bulb: Colour, lit: bool) -> list[Part]:
    half, top = tall * 0.13, tall * 1.2
    hood = [(-half * 1.25, top), (half * 1.25, top), (half * 0.3, top * 1.075), (-half * 0.3, top * 1.075)]
    return [
        Part(bar(-half * 1.3, tall * 0.86, half * 1.3, tall * 0.86, post * 0.7), iron),
        Part([(-half * 0.6, tall), (half * 0.6, tall), (half, top), (-half, top)], bulb, lit),
        Part(bar(0, tall, 0, top, post * 0.5), iron),
        Part(hood, iron),
        Part(box(-half * 0.75, tall * 0.97, half * 0.75, tall), iron),
    ]


def _globes(tall: float, post: float, iron: Colour, bulb: Colour, lit: bool) -> list[Part]:
    reach, ball = tall * 0.17, tall * 0.085
    parts = [Part(bar(-reach, tall * 0.93, reach, tall * 0.93, post * 0.8), iron)]
    for x, y in ((-reach, tall), (reach, tall), (0, tall * 1.08)):
        parts.append(Part(box(x - post, y - ball * 1.2, x + post, y - ball * 0.7), iron))
        parts.append(Part(ellipse(x, y, ball, ball), bulb, lit))
    return parts


def _arm(tall: float, post: float, iron: Colour, bulb: Colour, lit: bool, *, x: float) -> list[Part]:
    """Draw the arm of a mast with its lamp, extending to `x`."""
    cover = [
        (x * 0.62, tall * 1.05),
        (x * 1.12, tall * 1.03),
        (x * 1.12, tall * 0.985),
        (x * 0.62, tall * 0.97),
    ]
    glass = [(x * 0.66, tall * 0.985), (x * 1.08, tall * 0.99), (x, tall * 0.945), (x * 0.72, tall * 0.94)]
    return [
        Part(bar(0, tall * 0.93, x * 0.6, tall * 1.02, post * 0.85), iron),
        Part(bar(x * 0.55, tall * 1.02, x, tall * 1.02, post * 0.85), iron),
        Part(cover, shade(iron, 0.8)),
        Part(glass, bulb, lit),
    ]


def lamp(rng: Random, setting: Setting) -> list[Part]:
    """Draw a street lamp: a lantern, a cluster of globes, or a mast with one or two arms."""
    iron = rng.choice(((44, 48, 50), (120, 124, 126), (58, 84, 72), (112, 88, 60), paint(rng)))
    bulb: Colour = (255, 226, 150) if setting.night else (236, 236, 226)
    kind = rng.choice(("lantern", "globes", "arm", "arms"))
    tall = rng.uniform(3.3, 4.2) if kind in ("lantern", "globes") else rng.uniform(4.6, 5.8)
    post = tall * 0.05
    parts = [
        Part([(-post * 2, 0), (post * 2, 0), (post, tall * 0.13), (-post, tall * 0.13)], shade(iron, 0.8)),
        Part(bar(0, 0, 0, tall, post * 1.25, post * 0.85), iron),
        Part(bar(post * 0.25, 0, post * 0.25, tall, post * 0.4), shade(iron, 1.35)),
    ]
    if kind == "lantern":
        return parts + _lantern(tall, post, iron, bulb, setting.night)
    if kind == "globes":
        return parts + _globes(tall, post, iron, bulb, setting.night)
    reach = tall * rng.uniform(0.26, 0.36)
    for x in (reach, -reach) if kind == "arms" else (reach,):
        parts += _arm(tall, post, iron, bulb, setting.night, x=x)
    return parts


def _blob(rng: Random, x: float, y: float, rx: float, ry: float) -> list[Point]:
    """Return the outline of foliage: an ellipse with a randomly indented edge."""
    return [(x + px * s, y + py * s) for px, py in ellipse(0, 0, rx, ry) for s in (rng.uniform(0.82, 1.12),)]


def _conifer(rng: Random, tall: float, bark: Colour, leaf: Colour) -> list[Part]:
    wide = tall * rng.uniform(0.2, 0.28)
    parts = [Part(bar(0, 0, 0, tall * 0.3, tall * 0.07), bark)]
    for k in range(4):
        low, half = tall * (0.12 + 0.2 * k), wide * (1 - 0.21 * k)
        tip = (0.0, min(low + tall * 0.36, tall))
        parts.append(Part([(-half, low), (half, low), tip], shade(leaf, 0.72 + 0.08 * k)))
        parts.append(Part([(-half, low), (-half * 0.1, low * 1.03), tip], shade(leaf, 0.95 + 0.08 * k)))
    return parts


def _poplar(rng: Random, tall: float, bark: Colour, leaf: Colour) -> list[Part]:
    parts = [Part(bar(0, 0, 0, tall * 0.4, tall * 0.06), bark)]
    for x, y, size, tone in ((0, 0.55, 1.0, 0.75), (-0.03, 0.5, 0.72, 0.95), (-0.03, 0.72, 0.55, 1.1)):
        outline = _blob(rng, x * tall, y * tall, tall * 0.16 * size, tall * 0.43 * size)
        parts.append(Part(outline, shade(leaf, tone)))
    return parts


def _palm(rng: Random, tall: float, bark: Colour, leaf: Colour) -> list[Part]:
    hub = (rng.uniform(-0.16, 0.16) * tall, tall * 0.8)
    parts = [Part(bar(0, 0, *hub, tall * 0.075, tall * 0.045), bark)]
    fronds = ((-0.4, 0.62), (0.4, 0.62), (-0.36, 0.86), (0.36, 0.86), (-0.14, 1.0), (0.16, 1.0))
    for k, (x, y) in enumerate(fronds):
        tip, knee = (hub[0] + x * tall, y * tall), (hub[0] + x * 0.6 * tall, (y * 0.6 + 0.4) * tall)
        low = (hub[0] + x * 0.57 * tall, knee[1] - tall * 0.09)
        parts.append(Part([hub, knee, tip, low], shade(leaf, 0.75 + 0.1 * k)))
    return parts


def _bare(rng: Random, tall: float, bark: Colour, leaf: Colour) -> list[Part]:
    lean = rng.uniform(-0.08, 0.08) * tall
    parts = [Part(bar(0, 0, lean, tall * 0.5, tall * 0.1, tall * 0.06), bark)]
    for x, y, start in ((-0.3, 0.85, 0.35), (0.32, 0.8, 0.4), (-0.12, 1.0, 0.48), (0.16, 0.98, 0.48)):
        fork = (lean + x * 0.55 * tall, tall * (start + (y - start) * 0.6))
        parts.append(Part(bar(lean * start * 2, tall * start, *fork, tall * 0.05, tall * 0.03), bark))
        for twig in (-0.13, 0.02, 0.13):
            tip = (lean + (x + twig) * tall, tall * (y - abs(twig) / 2))
            parts.append(Part(bar(*fork, *tip, tall * 0.028, 0.02), bark))
    return parts


def _broad_leaved(rng: Random, tall: float, bark: Colour, leaf: Colour) -> list[Part]:
    lean, wide = rng.uniform(-0.08, 0.08) * tall, tall * rng.uniform(0.26, 0.36)
    parts = [Part(bar(0, 0, lean, tall * 0.5, tall * 0.1, tall * 0.06), bark)]
    if rng.random() < 0.12:
        leaf = (222, 176, 192)  # in blossom
    for x, y, size, tone in CROWN:
        outline = _blob(rng, lean + x * wide, y * tall, wide * size, tall * 0.27 * size)
        parts.append(Part(outline, shade(leaf, tone * rng.uniform(0.94, 1.06))))
    if rng.random() < 0.2:
        fruit = rng.choice(((206, 50, 40), (240, 170, 60)))
        for _ in range(5):
            x, y = lean + rng.uniform(-0.7, 0.7) * wide, rng.uniform(0.52, 0.82) * tall
            parts.append(Part(ellipse(x, y, tall * 0.022, tall * 0.022), fruit))
    return parts


CROWN = (
    (0.0, 0.66, 1.0, 0.74),
    (-0.55, 0.58, 0.62, 0.86),
    (0.55, 0.6, 0.6, 0.7),
    (-0.15, 0.82, 0.62, 1.02),
    (-0.35, 0.72, 0.42, 1.18),
    (0.3, 0.74, 0.38, 0.92),
)
"""Clumps of leaves: x in crown widths, y in tree heights, size, and brightness."""
LEAVES: tuple[Colour, ...] = (
    *((70, 112, 48), (48, 86, 52), (104, 136, 60), (120, 140, 90), (84, 110, 100)),
    *((186, 112, 44), (196, 158, 58), (156, 62, 46)),
)
TREES = (_broad_leaved, _broad_leaved, _broad_leaved, _conifer, _poplar, _palm, _bare)


def tree(rng: Random, setting: Setting) -> list[Part]:
    """Draw a broad-leaved tree, a conifer, a poplar, a palm or a bare tree, in any season."""
    bark = rng.choice(((92, 68, 50), (70, 58, 50), (206, 200, 190), (120, 94, 72)))
    return rng.choice(TREES)(rng, rng.uniform(4.5, 8.5), bark, rng.choice(LEAVES))
