"""Drawings of boat, bus and car; see `shapes` for the units."""

from __future__ import annotations

from random import Random

from pretext.datasets.scenery.shapes import (
    GLASS,
    LIT,
    RUBBER,
    Colour,
    Part,
    Setting,
    bar,
    box,
    ellipse,
    paint,
    shade,
)


def _sails(rng: Random, setting: Setting, half: float, deck: float, trim: Colour) -> list[Part]:
    top, mast = half * rng.uniform(2.1, 2.7), half * rng.uniform(0.05, 0.25)
    cloth = rng.choice(((245, 243, 235), (235, 225, 200), paint(rng)))
    boom, luff, leech = deck * 1.55, mast - 0.12, -half * 0.42
    stripe = [
        (luff, top * 0.62),
        (luff, top * 0.52),
        (leech - half * 0.1, top * 0.4),
        (leech + half * 0.06, top * 0.5),
    ]
    jib = [(mast + 0.14, top * 0.9), (mast + 0.14, boom * 0.95), (half * 0.97, deck * 1.25)]
    return [
        Part(box(-half * 0.45, deck, half * 0.2, deck * 1.4), shade(trim, 1.2)),
        Part(bar(mast, deck, mast, top, 0.16), (110, 85, 60)),
        Part([(luff, top * 0.97), (luff, boom), (-half * 0.85, boom * 1.05), (leech, top * 0.5)], cloth),
        Part(stripe, rng.choice((shade(cloth, 0.85), trim))),
        Part(jib, shade(rng.choice((cloth, paint(rng))), 0.9)),
    ]


def _cabin(rng: Random, setting: Setting, half: float, deck: float, trim: Colour) -> list[Part]:
    roof, low, high = deck * 2.1, deck * 1.3, deck * 1.9
    pane = [(-half * 0.3, low), (half * 0.2, low), (half * 0.07, high), (-half * 0.3, high)]
    return [
        Part(
            [(-half * 0.5, deck), (half * 0.35, deck), (half * 0.1, roof), (-half * 0.42, roof)],
            (238, 238, 236),
        ),
        Part(pane, LIT if setting.night else GLASS, setting.night),
        Part(box(-half * 0.5, roof, half * 0.16, deck * 2.3), trim),
        Part(box(-half * 1.05, deck * 0.3, -half * 0.9, deck * 1.25), RUBBER),
    ]


def _wheelhouse(rng: Random, setting: Setting, half: float, deck: float, trim: Colour) -> list[Part]:
    x = rng.uniform(-0.55, 0.1) * half
    glass = LIT if setting.night else GLASS
    return [
        Part(bar(x - 0.9, deck, x - 0.9, deck * 4.4, 0.2), (90, 76, 60)),
        Part(bar(x - 0.9, deck * 4.2, half * 0.8, deck * 1.2, 0.09), (70, 66, 60)),
        Part(box(x - 1.4, deck, x + 1.5, deck * 2.7), (232, 230, 222)),
        Part(box(x - 1.7, deck * 2.7, x + 1.8, deck * 2.95), trim),
        Part(box(x - 1.0, deck * 1.8, x - 0.1, deck * 2.4), glass, setting.night),
        Part(box(x + 0.3, deck * 1.8, x + 1.2, deck * 2.4), glass, setting.night),
        Part(bar(half * 0.55, deck, half * 0.55, deck * 2.3, 0.14), (90, 76, 60)),
    ]


BOATS = (
    (_sails, 6.5),
    (_sails, 6.5),
    (_cabin, 6.5),
    (_wheelhouse, 10.0),
)
"""Drawing of the superstructure, and length in metres."""


def boat(rng: Random, setting: Setting) -> list[Part]:
    """Draw a sailing boat, a motor boat or a fishing boat, from the side."""
    hull, trim = paint(rng), paint(rng)
    on_deck, length = rng.choice(BOATS)
    length *= rng.uniform(0.85, 1.15)
    deck, half = length * rng.uniform(0.12, 0.17), length / 2
    stern, bow = (-half * 0.96, deck), (half * 1.05, deck * 1.15)
    line = deck * 0.24
    return [
        Part([(-half * 0.86, 0), (half * 0.72, 0), bow, stern], hull),
        Part([(-half * 0.86, 0), (half * 0.72, 0), (half * 0.79, line), (-half * 0.88, line)], shade(trim, 0.6)),
        Part([(-half * 0.94, deck * 0.78), (half * 0.97, deck * 0.9), bow, stern], trim),
        *on_deck(rng, setting, half, deck, trim),
    ]


def _wheel(x: float, radius: float) -> list[Part]:
    return [
        Part(ellipse(x, radius, radius, radius), RUBBER),
        Part(ellipse(x, radius, radius * 0.55, radius * 0.55), (168, 170, 174)),
    ]


def _front_of_vehicle(
    rng: Random, night: bool, colour: Colour, *, half: float, height: float, bonnet: float, glass: float
) -> list[Part]:
    """Draw a car or bus from the front or back; the window lies between the heights `bonnet` and `glass`."""
    ahead = rng.random() < 0.5
    lamp: Colour = (255, 246, 214) if ahead else (225, 40, 34)
    roof = half * (0.72 if height < 2.2 else 0.97)
    low = height * 0.13
    parts = [Part(box(side * half * 0.78 - 0.15, 0, side * half * 0.78 + 0.15, low * 2.4), RUBBER) for side in (-1, 1)]
    parts += [
        Part([(-half, low), (half, low), (half, bonnet), (-half, bonnet)], colour),
        Part([(-half, bonnet), (half, bonnet), (roof, height), (-roof, height)], shade(colour, 0.88)),
        Part(
            [
                (-half * 0.9, bonnet * 1.03),
                (half * 0.9, bonnet * 1.03),
                (roof * 0.9, glass),
                (-roof * 0.9, glass),
            ],
            shade(GLASS, 0.75),
        ),
        Part(
            [
                (-half * 0.3, bonnet * 1.03),
                (half * 0.1, bonnet * 1.03),
                (roof * 0.5, glass),
                (roof * 0.1, glass),
            ],
            shade(GLASS, 1.25),
        ),
        Part(box(-half, low, half, low * 1.7), shade(colour, 0.5)),
        Part(
            box(-half * 0.35, low * 1.5, half * 0.35, low * 2.3),
            (225, 222, 205) if ahead else (205, 200, 120),
        ),
    ]
    top, radius = bonnet * 0.72, half * 0.17
    parts += [Part(ellipse(side * half * 0.76, top, radius, radius * 0.75), lamp, night) for side in (-1, 1)]
    return parts


def car(rng: Random, setting: Setting) -> list[Part]:
    """Draw a saloon, hatchback, estate car or pick-up."""
    colour = paint(rng)
    height = rng.uniform(1.4, 1.7)
    if setting.front:
        return _front_of_vehicle(
            rng, setting.night, colour, half=0.88, height=height, bonnet=height * 0.6, glass=height * 0.92
        )
    half, belt, radius = rng.uniform(1.95, 2.3), height * 0.58, 0.33
    a, b, c, d = rng.choice(
        (
            (
                -0.62,
                -0.42,
                0.18,
                0.46,
            ),  # saloon: where cabin and roof begin, and where roof and cabin end
            (-0.96, -0.8, 0.14, 0.44),  # hatchback
            (-0.98, -0.93, 0.2, 0.48),  # estate
            (-0.18, -0.1, 0.28, 0.5),  # pick-up
        )
    )
    sill, glass = 0.24, LIT if setting.night and rng.random() < 0.3 else GLASS
    middle = (b + c) / 2 * half
    parts = [
        Part([(a * half, belt), (d * half, belt), (c * half, height), (b * half, height)], shade(colour, 0.9)),
        Part(
            [
                (-half, sill),
                (half * 0.98, sill),
                (half, belt * 0.78),
                (half * 0.9, belt * 0.92),
                (half * 0.45, belt),
                (-half * 0.97, belt),
            ],
            colour,
        ),
        Part(
            [
                ((a + 0.06) * half, belt),
                (middle - 0.05, belt),
                (middle - 0.05, height * 0.93),
                ((b + 0.04) * half, height * 0.93),
            ],
            glass,
        ),
        Part(
            [
                (middle + 0.05, belt),
                ((d - 0.06) * half, belt),
                ((c - 0.02) * half, height * 0.93),
                (middle + 0.05, height * 0.93),
            ],
            shade(glass, 1.15),
        ),
        Part(box(-half, sill, half * 0.98, sill + 0.12), shade(colour, 0.5)),
        Part(bar(middle, sill, middle, belt, 0.04), shade(colour, 0.6)),
        Part(box(half * 0.88, belt * 0.62, half * 0.99, belt * 0.82), (255, 244, 205), setting.night),
        Part(box(-half, belt * 0.66, -half * 0.93, belt * 0.9), (214, 44, 36), setting.night),
    ]
    return parts + _wheel(-half * 0.62, radius) + _wheel(half * 0.62, radius)


def bus(rng: Random, setting: Setting) -> list[Part]:
    """Draw a bus with one or two decks."""
    colour, stripe = paint(rng), paint(rng)
    decks = rng.choice((1, 1, 2))
    height = 2.9 if decks == 1 else 4.2
    glass, lit = (LIT, True) if setting.night else (shade(GLASS, 0.85), False)
    if setting.front:
        parts = _front_of_vehicle(rng, setting.night, colour, half=1.25, height=height, bonnet=1.25, glass=2.3)
        parts.append(Part(box(-0.8, height - 0.45, 0.8, height - 0.12), (245, 190, 70), True))
        if decks == 2:
            parts.append(Part(box(-1.05, 2.65, 1.05, 3.55), glass, lit))
        return parts
    half = rng.uniform(4.2, 5.4)
    parts = [
        Part(
            [
                (-half, 0.35),
                (half, 0.35),
                (half, height - 0.25),
                (half - 0.25, height),
                (-half + 0.15, height),
                (-half, height - 0.2),
            ],
            colour,
        ),
        Part(box(-half, 0.35, half, 0.62), shade(colour, 0.55)),
        Part(box(-half, 0.95, half, 1.2), stripe),
    ]
    step = (2 * half - 2.1) / 6
    for deck in range(decks):
        low = 1.35 + 1.4 * deck
        for k in range(6):
            x = -half + 0.3 + k * step
            parts.append(Part(box(x, low, x + step - 0.22, low + 0.95), glass, lit))
        parts.append(Part(box(half - 0.55, low - 0.1, half - 0.05, low + 1.0), shade(glass, 1.1), lit))
    door = half - 1.75
    parts.append(Part(box(door, 0.45, door + 0.95, 2.3), shade(GLASS, 0.65)))
    parts.append(Part(bar(door + 0.47, 0.45, door + 0.47, 2.3, 0.08), shade(colour, 0.8)))
    parts.append(Part(box(half - 0.22, 0.6, half, 0.85), (255, 244, 205), setting.night))
    return parts + _wheel(-half * 0.62, 0.5) + _wheel(half * 0.5, 0.5)
