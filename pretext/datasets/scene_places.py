"""What stands still in `scenes`: house, lamp, tree. `scene_shapes` says how a drawing is written."""

from __future__ import annotations

from random import Random

from pretext.datasets.scene_shapes import GLASS, LIT, Colour, Part, Point, View, bar, box, ellipse, paint, shade


def _window(draw: Random, view: View, x: float, y: float, wide: float, high: float, frame: Colour) -> list[Part]:
    lit = view.night and draw.random() < 0.6
    return [
        Part(box(x - 0.1, y - 0.12, x + wide + 0.1, y + high + 0.1), frame),
        Part(box(x, y, x + wide, y + high), LIT if lit else shade(GLASS, draw.uniform(0.6, 1.1)), lit),
        Part(bar(x + wide / 2, y, x + wide / 2, y + high, 0.1), frame),
    ]


def house(draw: Random, view: View) -> list[Part]:
    """Draw a cottage, a gabled house or a town house of several floors, with door, windows and roof."""
    wall, roof = paint(draw), draw.choice(((150, 70, 52), (96, 60, 50), (84, 88, 98), (130, 110, 84), paint(draw)))
    wall = shade(wall, draw.choice((1.0, 1.25)))
    frame = draw.choice(((244, 240, 232), (70, 54, 44), shade(wall, 0.6)))
    kind = draw.choice(("gable", "gable", "cottage", "town"))
    floors = {"gable": draw.choice((1, 2)), "cottage": 1, "town": draw.choice((2, 3))}[kind]
    front = draw.uniform(4.6, 6.0) if kind != "cottage" else draw.uniform(7.5, 9.5)
    side = draw.uniform(2.2, 4.0) if kind == "gable" else draw.choice((0.0, draw.uniform(1.2, 2.4)))
    eaves, rise = 2.9 * floors, draw.uniform(1.9, 2.8)
    left = -(front + side) / 2
    corner, right = left + front, left + front + side
    parts: list[Part] = []
    stack = draw.uniform(left + front * 0.6, corner - 0.4) if kind != "gable" else corner + side * 0.35
    chimney = Part(box(stack - 0.4, eaves, stack + 0.4, eaves + rise + 0.75), (132, 76, 62))
    if kind != "town" and draw.random() < 0.7:
        parts.append(chimney)
    if side:
        parts.append(Part([(corner, 0), (right, 0.1), (right, eaves), (corner, eaves)], shade(wall, 0.68)))
    parts.append(Part(box(left, 0, corner, eaves), wall))
    if kind == "gable":
        peak = left + front / 2
        parts += [
            Part([(left, eaves), (corner, eaves), (peak, eaves + rise)], wall),
            Part([(corner + 0.3, eaves - 0.25), (right + 0.3, eaves - 0.15), (right - front * 0.3, eaves + rise),
                  (peak, eaves + rise + 0.1)], shade(roof, 0.82)),
            Part(bar(left - 0.35, eaves - 0.3, peak, eaves + rise + 0.05, 0.4), roof),
            Part(bar(peak, eaves + rise + 0.05, corner + 0.35, eaves - 0.3, 0.4), roof),
            Part(ellipse(peak, eaves + rise * 0.35, 0.4, 0.4), shade(GLASS, 0.8)),
        ]
    elif kind == "cottage":
        parts.append(Part([(left - 0.4, eaves - 0.1), (right + 0.4, eaves - 0.1), (right - 0.7, eaves + rise),
                           (left + 0.7, eaves + rise)], roof))
        parts.append(Part(bar(left - 0.1, eaves + rise * 0.35, right + 0.1, eaves + rise * 0.35, 0.12), shade(roof, 0.8)))
    else:
        parts.append(Part(box(left - 0.2, eaves - 0.1, right + 0.2, eaves + 0.4), shade(roof, 0.9)))
        parts.append(Part([(left, eaves + 0.4), (right, eaves + 0.4), (right - 0.6, eaves + 1.3),
                           (left + 0.6, eaves + 1.3)], shade(roof, 1.1)))
    columns = 2 if front < 5.2 else 3
    step = front / columns
    door = draw.randrange(columns)
    for floor in range(floors):
        for column in range(columns):
            x, y = left + (column + 0.5) * step, 2.9 * floor
            if floor == 0 and column == door:
                parts.append(Part(box(x - 0.6, 0, x + 0.6, 2.25), frame))
                parts.append(Part(box(x - 0.48, 0, x + 0.48, 2.1), paint(draw)))
            else:
                parts += _window(draw, view, x - 0.5, y + 0.95, 1.0, 1.3, frame)
    if side > 2:
        parts += _window(draw, view, corner + side * 0.35, 1.0, 0.8, 1.2, shade(frame, 0.8))
    return parts


def lamp(draw: Random, view: View) -> list[Part]:
    """Draw a street lamp: a lantern, a globe cluster, or a mast with one arm or two."""
    iron = draw.choice(((44, 48, 50), (120, 124, 126), (58, 84, 72), (112, 88, 60), paint(draw)))
    bulb: Colour = (255, 226, 150) if view.night else (236, 236, 226)
    kind = draw.choice(("lantern", "globes", "arm", "arms"))
    tall = draw.uniform(3.3, 4.2) if kind in ("lantern", "globes") else draw.uniform(4.6, 5.8)
    post = tall * 0.05
    parts = [
        Part([(-post * 2, 0), (post * 2, 0), (post, tall * 0.13), (-post, tall * 0.13)], shade(iron, 0.8)),
        Part(bar(0, 0, 0, tall, post * 1.25, post * 0.85), iron),
        Part(bar(post * 0.25, 0, post * 0.25, tall, post * 0.4), shade(iron, 1.35)),
    ]
    if kind == "lantern":
        w, top = tall * 0.13, tall * 1.2
        parts += [
            Part(bar(-w * 1.3, tall * 0.86, w * 1.3, tall * 0.86, post * 0.7), iron),
            Part([(-w * 0.6, tall), (w * 0.6, tall), (w, top), (-w, top)], bulb, view.night),
            Part(bar(0, tall, 0, top, post * 0.5), iron),
            Part([(-w * 1.25, top), (w * 1.25, top), (w * 0.3, top + tall * 0.09), (-w * 0.3, top + tall * 0.09)], iron),
            Part(box(-w * 0.75, tall * 0.97, w * 0.75, tall * 1.0), iron),
        ]
    elif kind == "globes":
        reach, ball = tall * 0.17, tall * 0.085
        parts.append(Part(bar(-reach, tall * 0.93, reach, tall * 0.93, post * 0.8), iron))
        for x, y in ((-reach, tall * 1.0), (reach, tall * 1.0), (0, tall * 1.08)):
            parts.append(Part(box(x - post, y - ball * 1.2, x + post, y - ball * 0.7), iron))
            parts.append(Part(ellipse(x, y, ball, ball), bulb, view.night))
    else:
        reach = tall * draw.uniform(0.26, 0.36)
        for side in (1, -1) if kind == "arms" else (1,):
            x = side * reach
            parts += [
                Part(bar(0, tall * 0.93, x * 0.6, tall * 1.02, post * 0.85), iron),
                Part(bar(x * 0.55, tall * 1.02, x, tall * 1.02, post * 0.85), iron),
                Part([(x * 0.62, tall * 1.05), (x * 1.12, tall * 1.03), (x * 1.12, tall * 0.985), (x * 0.62, tall * 0.97)],
                     shade(iron, 0.8)),
                Part([(x * 0.66, tall * 0.985), (x * 1.08, tall * 0.99), (x * 1.0, tall * 0.945), (x * 0.72, tall * 0.94)],
                     bulb, view.night),
            ]
    return parts


def _blob(draw: Random, x: float, y: float, rx: float, ry: float) -> list[Point]:
    """Return a leafy outline: an ellipse whose edge goes in and out."""
    ring = ellipse(0, 0, rx, ry)
    return [(x + px * s, y + py * s) for (px, py), s in zip(ring, [draw.uniform(0.82, 1.12) for _ in ring], strict=True)]


def tree(draw: Random, view: View) -> list[Part]:
    """Draw a broad-leaved tree, a conifer, a poplar, a palm or a bare tree."""
    leaf: Colour = draw.choice((
        (70, 112, 48), (48, 86, 52), (104, 136, 60), (120, 140, 90), (186, 112, 44), (196, 158, 58), (156, 62, 46),
        (214, 168, 184), (84, 110, 100),
    ))
    bark = draw.choice(((92, 68, 50), (70, 58, 50), (206, 200, 190), (120, 94, 72)))
    kind = draw.choice(("broad", "broad", "broad", "conifer", "poplar", "palm", "bare"))
    tall = draw.uniform(4.5, 8.5)
    if kind == "conifer":
        wide = tall * draw.uniform(0.2, 0.28)
        parts = [Part(bar(0, 0, 0, tall * 0.3, tall * 0.07), bark)]
        for k in range(4):
            low, w = tall * (0.12 + 0.2 * k), wide * (1 - 0.21 * k)
            high = min(low + tall * 0.36, tall)
            parts.append(Part([(-w, low), (w, low), (0, high)], shade(leaf, 0.72 + 0.08 * k)))
            parts.append(Part([(-w, low), (-w * 0.1, low + tall * 0.02), (0, high)], shade(leaf, 0.95 + 0.08 * k)))
        return parts
    if kind == "poplar":
        parts = [Part(bar(0, 0, 0, tall * 0.4, tall * 0.06), bark)]
        for x, y, s, tone in ((0, 0.55, 1.0, 0.75), (-0.03, 0.5, 0.72, 0.95), (-0.03, 0.72, 0.55, 1.1)):
            parts.append(Part(_blob(draw, x * tall, y * tall, tall * 0.16 * s, tall * 0.43 * s), shade(leaf, tone)))
        return parts
    lean = draw.uniform(-0.08, 0.08) * tall
    if kind == "palm":
        parts = [Part(bar(0, 0, lean * 2, tall * 0.8, tall * 0.075, tall * 0.045), bark)]
        for k, (x, y) in enumerate(((-0.4, 0.62), (0.4, 0.62), (-0.36, 0.86), (0.36, 0.86), (-0.14, 1.0), (0.16, 1.0))):
            tip, knee = (lean * 2 + x * tall, y * tall), (lean * 2 + x * 0.6 * tall, (y * 0.6 + 0.4) * tall)
            hub = (lean * 2, tall * 0.8)
            low = (knee[0] * 0.95 + lean * 0.1, knee[1] - tall * 0.09)
            parts.append(Part([hub, knee, tip, low], shade(leaf, 0.75 + 0.1 * k)))
        return parts
    parts = [Part(bar(0, 0, lean, tall * 0.5, tall * 0.1, tall * 0.06), bark)]
    if kind == "bare":
        for x, y, start in ((-0.3, 0.85, 0.35), (0.32, 0.8, 0.4), (-0.12, 1.0, 0.48), (0.16, 0.98, 0.48)):
            fork = (lean + x * 0.55 * tall, tall * (start + (y - start) * 0.6))
            parts.append(Part(bar(lean * start * 2, tall * start, *fork, tall * 0.05, tall * 0.03), bark))
            for twig in (-0.13, 0.02, 0.13):
                parts.append(Part(bar(*fork, lean + (x + twig) * tall, tall * (y - abs(twig) / 2), tall * 0.028, 0.02), bark))
        return parts
    wide = tall * draw.uniform(0.26, 0.36)
    spots = [(0.0, 0.66, 1.0, 0.74), (-0.55, 0.58, 0.62, 0.86), (0.55, 0.6, 0.6, 0.7), (-0.15, 0.82, 0.62, 1.02),
             (-0.35, 0.72, 0.42, 1.18), (0.3, 0.74, 0.38, 0.92)]
    for x, y, s, tone in spots:
        outline = _blob(draw, lean + x * wide, y * tall, wide * s, tall * 0.27 * s)
        parts.append(Part(outline, shade(leaf, tone * draw.uniform(0.94, 1.06))))
    if draw.random() < 0.2:
        fruit = draw.choice(((206, 50, 40), (240, 170, 60)))
        for _ in range(5):
            x, y = draw.uniform(-0.7, 0.7) * wide, draw.uniform(0.52, 0.82) * tall
            parts.append(Part(ellipse(lean + x, y, tall * 0.022, tall * 0.022), fruit))
    return parts
