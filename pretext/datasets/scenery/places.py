"""Tables of the lights and places of scenes, and of the surfaces where each class may stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pretext.datasets.scenery.shapes import Colour

STANDS_ON: Mapping[str, frozenset[str]] = {
    "bird": frozenset({"sky"}),
    "boat": frozenset({"water"}),
    "bus": frozenset({"road"}),
    "car": frozenset({"road"}),
    "cow": frozenset({"grass"}),
    "house": frozenset({"grass", "square"}),
    "lamp": frozenset({"pavement", "square", "verge"}),
    "person": frozenset({"grass", "sand", "pavement", "square"}),
    "sheep": frozenset({"grass"}),
    "tree": frozenset({"grass", "square"}),
}
LANE = 3.4
"""Half the width in metres of a road to the horizon."""


@dataclass(frozen=True)
class Light:
    """A time of day: the sky's colours and the light on everything else."""

    sky_top: Colour
    sky_low: Colour
    tint: Colour
    """Factor on the red, green and blue of every surface."""
    visibility: float
    """Distance in metres at which haze hides 63 % of a colour."""
    shadow: float
    """Darkness of cast shadows, 0 to 1."""
    disc: Colour | None = None
    """Colour of the sun or moon; None if neither is visible."""
    night: bool = False


LIGHTS: Mapping[str, Light] = {
    "noon": Light((66, 126, 204), (176, 208, 232), (1.0, 0.99, 0.95), 400, 0.5),
    "afternoon": Light((104, 150, 200), (224, 220, 204), (1.04, 0.96, 0.84), 250, 0.5),
    "mist": Light((158, 180, 198), (216, 222, 224), (0.92, 0.95, 0.96), 45, 0.12),
    "overcast": Light((130, 140, 152), (196, 200, 204), (0.78, 0.81, 0.86), 160, 0.1),
    "sunset": Light((92, 112, 172), (250, 186, 116), (1.02, 0.8, 0.6), 200, 0.5, (255, 240, 190)),
    "dusk": Light((52, 50, 104), (226, 116, 96), (0.6, 0.5, 0.58), 160, 0.12, (255, 180, 110), night=True),
    "night": Light((10, 14, 40), (40, 52, 92), (0.42, 0.46, 0.62), 300, 0.1, (226, 230, 240), night=True),
}


@dataclass(frozen=True)
class Place:
    """A kind of scene: its bands of ground from the horizon to the viewer, and the classes in it."""

    bands: tuple[tuple[str, float, float], ...]
    """Surface, and the range in which it begins: 0 is the horizon, 1 the lower edge of the picture."""
    backdrops: tuple[str, ...]
    classes: Mapping[str, float]
    """Classes with their weights when further objects are drawn. Each may be the subject."""
    lane: bool = False
    """Whether a road leads over the ground to the horizon."""
    lights: tuple[str, ...] = tuple(LIGHTS)


PLACES: Mapping[str, Place] = {
    "sea": Place((("water", 0, 0),), ("none", "coast", "mountains"), {"boat": 4, "bird": 2}),
    "beach": Place(
        (("water", 0, 0), ("sand", 0.4, 0.75)),
        ("none", "coast", "mountains"),
        {"boat": 4, "bird": 2, "person": 4},
    ),
    "lake": Place(
        (("grass", 0, 0), ("water", 0.12, 0.2), ("grass", 0.55, 0.75)),
        ("hills", "forest", "mountains"),
        {"boat": 4, "tree": 3, "house": 2, "person": 3, "cow": 2, "sheep": 2, "bird": 1},
    ),
    "harbour": Place(
        (("water", 0, 0), ("square", 0.4, 0.65)),
        ("coast", "city", "hills"),
        {"boat": 5, "lamp": 3, "person": 3, "bird": 2, "tree": 1},
    ),
    "meadow": Place(
        (("grass", 0, 0),),
        ("hills", "forest", "mountains", "coast"),
        {"cow": 3, "sheep": 3, "tree": 3, "house": 1, "person": 1, "bird": 1},
    ),
    "country road": Place(
        (("grass", 0, 0),),
        ("hills", "forest", "mountains"),
        {"car": 3, "bus": 2, "tree": 4, "house": 2, "lamp": 2, "person": 1, "cow": 1, "sheep": 1, "bird": 1},
        lane=True,
    ),
    "avenue": Place(
        (("square", 0, 0),),
        ("city", "forest"),
        {"car": 3, "bus": 3, "tree": 3, "house": 3, "lamp": 3, "person": 3, "bird": 1},
        lane=True,
    ),
    "street": Place(
        (("square", 0, 0), ("pavement", 0.2, 0.35), ("road", 0.42, 0.55), ("pavement", 0.86, 1.2)),
        ("city", "city", "hills"),
        {"car": 4, "bus": 2, "lamp": 3, "person": 4, "house": 3, "tree": 2, "bird": 1},
    ),
    "village": Place(
        (("grass", 0, 0), ("road", 0.34, 0.48), ("grass", 0.7, 0.95)),
        ("hills", "forest", "mountains"),
        {"house": 4, "tree": 3, "car": 2, "bus": 1, "person": 2, "lamp": 2, "cow": 1, "sheep": 1, "bird": 1},
    ),
}
