"""Drawings of bird, cow, person and sheep; see `shapes` for the units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from pretext.datasets.scenery.shapes import SKIN, Colour, Part, Point, Setting, bar, box, ellipse, paint, shade


def bird(rng: Random, setting: Setting) -> list[Part]:
    """Draw a flying bird: from the side with raised, level or lowered wings, or soaring, from the front."""
    back = rng.choice(((235, 235, 232), (60, 58, 62), (140, 100, 66), (205, 150, 60), (90, 110, 150), (170, 60, 50)))
    belly = rng.choice((back, shade(back, 1.35), (225, 215, 195)))
    tip = rng.choice((shade(back, 0.45), (35, 35, 38), back))
    beak = rng.choice(((235, 170, 50), (70, 66, 60)))
    if rng.random() < 0.3:
        droop, kink = rng.uniform(-0.06, 0.12), rng.uniform(0.16, 0.28)
        parts = [Part([(-0.1, -0.1), (0.1, -0.1), (0.17, -0.3), (-0.17, -0.3)], tip)]
        for s in (-1, 1):
            parts.append(
                Part(
                    [(0, 0.08), (s * 0.36, kink), (s * 0.42, kink - 0.16), (0, -0.1)],
                    shade(back, 1 + s * 0.08),
                )
            )
            parts.append(Part([(s * 0.36, kink), (s * 0.9, droop), (s * 0.42, kink - 0.16)], tip))
        parts += [Part(ellipse(0, -0.02, 0.12, 0.17), belly), Part(ellipse(0, 0.15, 0.085, 0.085), back)]
        return [*parts, Part([(-0.03, 0.14), (0.03, 0.14), (0, 0.06)], beak)]
    lift, neck = rng.choice((1.0, 0.8, 0.5, -0.55, -0.75)), rng.uniform(0.0, 0.12)
    sweep = rng.uniform(-0.45, -0.1)

    def wing(x: float, reach: float, tone: float) -> list[Part]:
        y = lift * reach
        middle = [(x + 0.2 + sweep * 0.3, y * 0.5), (x - 0.12 + sweep * 0.3, y * 0.45)]
        return [
            Part([(x + 0.17, 0.05), middle[0], middle[1], (x - 0.2, 0.02)], shade(back, tone)),
            Part([middle[0], (x + sweep, y), (x + sweep - 0.1, y * 0.85), middle[1]], shade(tip, tone)),
        ]

    return [
        *wing(0.12, 0.72, 0.7),
        Part([(-0.26, 0.05), (-0.26, -0.05), (-0.6, -0.1), (-0.55, -0.01), (-0.62, 0.07)], tip),
        Part(ellipse(0, 0, 0.38, 0.12), back),
        Part(ellipse(0.04, -0.045, 0.3, 0.07), belly),
        Part(bar(0.26, 0.02, 0.38 + neck, 0.07 + neck / 2, 0.14), back),
        Part(ellipse(0.4 + neck, 0.08 + neck / 2, 0.1, 0.09), back),
        Part(
            [(0.47 + neck, 0.11 + neck / 2), (0.47 + neck, 0.03 + neck / 2), (0.63 + neck, 0.05 + neck / 2)],
            beak,
        ),
        Part(ellipse(0.43 + neck, 0.1 + neck / 2, 0.018, 0.018), (20, 20, 20)),
        *wing(0.0, 0.85, 1.1),
    ]


def _legs(xs: Sequence[float], top: float, width: float, colour: Colour, rng: Random) -> list[Part]:
    """Draw legs with random steps; every second one is on the far side and darker."""
    parts = []
    for k, x in enumerate(xs):
        tint = shade(colour, 0.65 if k % 2 else 1.0)
        foot = x + rng.uniform(-0.12, 0.12) * top
        parts.append(Part(bar(x, top, foot, 0, width, width * 0.7), tint))
        parts.append(Part(box(foot - width * 0.4, 0, foot + width * 0.45, width * 0.45), shade(tint, 0.45)))
    return parts


def cow(rng: Random, setting: Setting) -> list[Part]:
    """Draw a cow, grazing or looking up: angular body, long legs, horns, udder, often patches."""
    coat = rng.choice(((240, 236, 228), (36, 34, 36), (150, 92, 54), (196, 152, 104), (120, 112, 108)))
    patch = rng.choice(((36, 34, 36), (240, 236, 228), (150, 92, 54), coat))
    parts = _legs((-0.74, -0.56, 0.5, 0.68), 0.75, 0.19, coat, rng)
    hip = rng.uniform(1.32, 1.42)
    parts += [
        Part(bar(-0.98, hip - 0.08, -1.08, 0.55, 0.07), shade(coat, 0.7)),
        Part(ellipse(-0.34, 0.66, 0.16, 0.13), (226, 160, 150)),
        Part(
            [(-0.98, hip), (-0.86, 0.72), (-0.2, 0.58), (0.55, 0.62), (0.86, 0.8), (0.92, 1.3), (0.6, 1.42)],
            coat,
        ),
    ]
    for x in (-0.65, -0.1, 0.45):
        if rng.random() < 0.75:
            y, size = rng.uniform(0.95, 1.2), rng.uniform(0.12, 0.24)
            parts.append(Part(ellipse(x + rng.uniform(-0.1, 0.1), y, size * 1.2, size * 0.8), patch))
    x, y = (1.42, 0.34) if rng.random() < 0.45 else (1.38, rng.uniform(1.35, 1.55))
    parts += [
        Part(bar(0.72, 1.12, x - 0.18, y + 0.04, 0.55, 0.28), shade(coat, 0.92)),
        Part(bar(x - 0.14, y + 0.26, x - 0.02, y + 0.42, 0.07), (226, 216, 190)),
        Part(bar(x - 0.3, y + 0.2, x - 0.46, y + 0.22, 0.12), shade(coat, 0.6)),
        Part(
            [
                (x - 0.3, y + 0.24),
                (x - 0.04, y + 0.26),
                (x + 0.28, y - 0.08),
                (x + 0.2, y - 0.24),
                (x - 0.2, y - 0.16),
            ],
            rng.choice((coat, patch)),
        ),
        Part(ellipse(x + 0.21, y - 0.14, 0.13, 0.11), (214, 160, 146)),
        Part(ellipse(x - 0.02, y + 0.11, 0.035, 0.035), (16, 14, 14)),
    ]
    return parts


def sheep(rng: Random, setting: Setting) -> list[Part]:
    """Draw a sheep, grazing or looking up: round wool on short thin legs."""
    wool = rng.choice(((240, 236, 224), (214, 204, 184), (150, 128, 106), (74, 66, 62), (190, 190, 194)))
    face = rng.choice(((40, 36, 36), (226, 206, 184), shade(wool, 0.8)))
    parts = _legs((-0.36, -0.24, 0.24, 0.36), 0.42, 0.085, face, rng)
    parts.append(Part(ellipse(-0.58, 0.6, 0.09, 0.12), shade(wool, 0.85)))
    parts.append(Part(ellipse(0, 0.58, 0.54, 0.28), wool))
    for k in range(9):
        angle = 2 * math.pi * k / 9
        tone = 0.8 + 0.16 * (math.sin(angle) + 1)
        size = rng.uniform(0.13, 0.18)
        parts.append(Part(ellipse(0.44 * math.cos(angle), 0.6 + 0.21 * math.sin(angle), size, size), shade(wool, tone)))
    for _ in range(4):
        x, y = rng.uniform(-0.35, 0.3), rng.uniform(0.5, 0.72)
        parts.append(Part(ellipse(x, y, 0.1, 0.07), shade(wool, rng.choice((0.86, 1.08)))))
    x, y = (0.72, 0.22) if rng.random() < 0.45 else (0.68, rng.uniform(0.78, 0.88))
    parts += [
        Part(bar(0.42, 0.68, x - 0.04, y + 0.04, 0.3, 0.2), shade(wool, 0.95)),
        Part(ellipse(x, y, 0.15, 0.12), face),
        Part(bar(x + 0.02, y + 0.02, x + 0.16, y - 0.09, 0.17, 0.11), face),
        Part(bar(x - 0.05, y + 0.08, x - 0.19, y + 0.06, 0.08), shade(face, 0.75)),
        Part(ellipse(x + 0.03, y + 0.13, 0.1, 0.07), wool),
        Part(ellipse(x + 0.06, y + 0.03, 0.022, 0.022), (16, 14, 14) if face[0] > 90 else (230, 220, 190)),
    ]
    return parts


def _hat(rng: Random, hands: list[Point], head: float, colour: Colour) -> list[Part]:
    brim = head + 0.07
    return [
        Part(box(-0.22, brim, 0.22, brim + 0.05), colour),
        Part(box(-0.13, brim + 0.04, 0.13, brim + 0.19), colour),
    ]


def _bag(rng: Random, hands: list[Point], head: float, colour: Colour) -> list[Part]:
    x, y = hands[0]
    return [Part(box(x - 0.16, y - 0.36, x + 0.16, y - 0.06), paint(rng))]


def _umbrella(rng: Random, hands: list[Point], head: float, colour: Colour) -> list[Part]:
    x, y = hands[1]
    cloth, rim = paint(rng), max(y + 0.5, head + 0.28)
    top, right = (x, rim + 0.38), [(x + 0.45, rim + 0.25), (x + 0.62, rim)]
    return [
        Part(bar(x, y, x, rim, 0.035), (40, 40, 44)),
        Part([(x - 0.62, rim), (x - 0.45, rim + 0.25), top, *right], cloth),
        Part([top, *right, (x + 0.2, rim)], shade(cloth, 0.75)),
    ]


EXTRAS = (_hat, _bag, _umbrella, None, None)


def person(rng: Random, setting: Setting) -> list[Part]:
    """Draw a person standing, walking or waving, in trousers or a skirt, some with hat, bag or umbrella."""
    skin, top, bottom = rng.choice(SKIN), paint(rng), paint(rng)
    hair = rng.choice(((32, 26, 24), (96, 62, 38), (206, 168, 100), (176, 172, 168), (140, 60, 34)))
    tall = rng.uniform(1.58, 1.9)
    hip, shoulder, head = 0.48 * tall, 0.82 * tall, 0.91 * tall
    stride, wide = rng.choice((0.05, 0.1, 0.24, 0.32)), rng.uniform(0.19, 0.25)
    skirt = rng.random() < 0.35
    leg = skin if skirt else bottom
    hands = [(-wide - rng.uniform(0.02, 0.3), hip * 0.98), (wide + rng.uniform(0.02, 0.3), hip * 0.98)]
    if rng.random() < 0.3:
        hands[1] = (wide + 0.24, tall * rng.uniform(0.75, 1.1))
    parts = [Part(bar(-wide * 0.8, shoulder - 0.05, *hands[0], 0.12, 0.09), shade(top, 0.75))]
    for side, tone in ((-1, 0.72), (1, 1.0)):
        foot = side * stride
        parts.append(Part(bar(side * 0.08, hip + 0.04, foot, 0.05, 0.19, 0.12), shade(leg, tone)))
        parts.append(Part(box(foot - 0.07, 0, foot + 0.17, 0.09), (44, 36, 34)))
    if skirt:
        parts.append(Part([(-0.17, hip * 1.2), (0.17, hip * 1.2), (0.34, hip * 0.52), (-0.34, hip * 0.52)], bottom))
    parts += [
        Part([(-wide, shoulder), (wide, shoulder), (0.17, hip), (-0.17, hip)], top),
        Part([(0.02, shoulder), (wide, shoulder), (0.17, hip), (0.02, hip)], shade(top, 0.86)),
        Part(box(-0.18, hip * 0.98, 0.18, hip * 1.05), shade(bottom, 0.6)),
        Part(bar(0, shoulder - 0.03, 0, head, 0.12), shade(skin, 0.85)),
        Part(ellipse(0, head, 0.125, 0.155), skin),
        Part(
            [
                (-0.14, head - 0.02),
                (-0.12, head + 0.14),
                (0.05, head + 0.18),
                (0.13, head + 0.07),
                (-0.03, head + 0.07),
                (-0.06, head - 0.1),
            ],
            hair,
        ),
        Part(bar(wide * 0.85, shoulder - 0.05, *hands[1], 0.13, 0.09), shade(top, 1.1)),
    ]
    parts += [Part(ellipse(x, y, 0.06, 0.06), skin) for x, y in hands]
    extra = rng.choice(EXTRAS)
    return parts + extra(rng, hands, head, bottom) if extra else parts
