"""How a picture of `scenes` is composed: which place and light, what stands where and how large.

All lengths here are in picture sides (0 to 1, y down) or metres, so that a scene is the same at every size.
The camera looks level from `camera` metres above flat ground: a metre seen on the ground line `y` measures
`(y - horizon) / camera` picture sides, and all sizes follow from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from pretext.datasets.scenery.creatures import bird, cow, person, sheep
from pretext.datasets.scenery.fixtures import house, lamp, tree
from pretext.datasets.scenery.places import LANE, LIGHTS, PLACES, STANDS_ON, Light, Place
from pretext.datasets.scenery.shapes import Drawing, Part, View
from pretext.datasets.scenery.vehicles import boat, bus, car

Box = tuple[float, float, float, float]

DRAWINGS: Mapping[str, Drawing] = {
    "bird": bird,
    "boat": boat,
    "bus": bus,
    "car": car,
    "cow": cow,
    "house": house,
    "lamp": lamp,
    "person": person,
    "sheep": sheep,
    "tree": tree,
}
CLASSES = tuple(DRAWINGS)
SMALLEST_SUBJECT = 0.2
"""Side in picture sides of a square as large as the subject's box, at least."""


@dataclass(frozen=True)
class Thing:
    """An object in its place."""

    name: str
    parts: list[Part]
    x: float
    y: float
    """The ground line it stands on (a bird: its middle)."""
    scale: float
    """Picture sides a metre takes at its distance."""
    points: NDArray[np.float32]
    """N×2: the points of all parts, in metres."""
    extent: Box
    """Left, bottom, right and top of them."""

    @property
    def box(self) -> Box:
        """The whole object's XYXY box in picture sides, hidden or outside parts included."""
        left, bottom, right, top = self.extent
        return (
            self.x + left * self.scale,
            self.y - top * self.scale,
            self.x + right * self.scale,
            self.y - bottom * self.scale,
        )


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows, at no particular size."""

    place: str
    light: Light
    horizon: float
    camera: float
    vanishing: float
    """Where on the horizon a road vanishes."""
    bands: tuple[tuple[str, float], ...]
    """Surfaces and the ground line y where each begins, from the horizon to the viewer."""
    backdrop: str
    things: tuple[Thing, ...]
    """The farthest first."""
    seed: int
    """For textures and small colour choices."""

    def surface(self, x: float, y: float) -> str:
        """Name what lies at a point of the picture: `sky`, or a surface."""
        if y <= self.horizon:
            return "sky"
        if PLACES[self.place].lane and abs(x - self.vanishing) * self.camera / (y - self.horizon) < LANE:
            return "road"
        return [surface for surface, start in self.bands if start <= y][-1]


def compose(draw: Random) -> Scene:
    """Choose the subject, a place that suits it, a light, and then the company.

    Where the ground leaves no room for a subject that can be made out, another place is drawn.
    """
    subject = draw.choice(CLASSES)
    while True:
        scene = _composed(draw, subject)
        if scene is not None:
            return scene


def _composed(draw: Random, subject: str) -> Scene | None:
    name = draw.choice([name for name, place in PLACES.items() if subject in place.classes])
    place = PLACES[name]
    light = LIGHTS[draw.choice(place.lights)]
    horizon = draw.uniform(0.5, 0.75) if subject == "bird" else draw.uniform(0.28, 0.55)
    starts = [draw.uniform(low, high) for _, low, high in place.bands]
    bands = tuple(
        (surface, horizon + start * (1 - horizon)) for (surface, *_), start in zip(place.bands, starts, strict=True)
    )
    stage = _Stage(draw, place, horizon, bands, View(place.lane, light.night))
    stage.set_subject(subject)
    if _area(stage.things[0].box) < SMALLEST_SUBJECT**2:
        return None
    names, weights = list(place.classes), list(place.classes.values())
    for _ in range(draw.choice((1, 2, 3, 4, 5, 6))):
        herd = draw.random() < 0.25 and subject != "house"
        stage.add(subject if herd else draw.choices(names, weights)[0])
    return Scene(
        place=name,
        light=light,
        horizon=horizon,
        camera=stage.camera,
        vanishing=stage.vanishing,
        bands=bands,
        backdrop=draw.choice(place.backdrops),
        things=tuple(sorted(stage.things, key=lambda thing: thing.scale)),
        seed=draw.getrandbits(32),
    )


class _Stage:
    """A place while it fills. The subject decides the camera's height; the company obeys it."""

    def __init__(
        self, draw: Random, place: Place, horizon: float, bands: tuple[tuple[str, float], ...], view: View
    ) -> None:
        self.draw, self.place, self.horizon, self.bands, self.view = draw, place, horizon, bands, view
        self.camera = draw.uniform(1.5, 4.0)
        self.vanishing = draw.uniform(0.2, 0.8)
        self.things: list[Thing] = []

    def set_subject(self, name: str) -> None:
        """Place the picture's subject, near and large."""
        draw = self.draw
        parts, points, extent = self._sketch(name)
        left, bottom, right, top = extent
        wide, tall = right - left, top - bottom
        scale = min(draw.uniform(0.38, 0.66) / (wide * tall) ** 0.5, 0.9 / tall, 0.95 / wide)
        slack = max(1 - wide * scale, 0) / 2
        x = 0.5 + draw.uniform(-slack, slack)
        if name == "bird":
            scale = min(scale, (self.horizon - 0.04) / tall)
            y = draw.uniform(0.02 + top * scale, self.horizon - 0.02 + bottom * scale)
        else:
            far, near = self._band(name)
            scale = min(scale, (near - 0.03) / tall, (near - self.horizon) / 0.8)
            low = max(far, 0.03 + tall * scale, self.horizon + 0.8 * scale)
            y = draw.uniform(min(low, near), near)
            self.camera = (y - self.horizon) / scale
            if self.place.lane:
                self.vanishing = x - self._lateral(name, wide) * scale
        self.things.append(Thing(name, parts, x, y, scale, points, extent))

    def add(self, name: str) -> None:
        """Place one more object, smaller than the subject, or give up where there is no room."""
        draw = self.draw
        parts, points, extent = self._sketch(name)
        left, bottom, right, top = extent
        wide, tall = right - left, top - bottom
        largest = 0.75 * (_area(self.things[0].box) ** 0.5)
        for _ in range(12):
            if name == "bird":
                scale = draw.uniform(0.08, 0.3)
                x, y = draw.random(), draw.uniform(0.05, max(self.horizon - 0.08, 0.06))
            else:
                far, near = self._band(name)
                y = far + (near - far) * draw.random() ** 1.3
                scale = (y - self.horizon) / self.camera
                x = draw.uniform(-0.02, 1.02)
                if self.place.lane:
                    x = self.vanishing + self._lateral(name, wide) * scale
            thing = Thing(name, parts, x, y, scale, points, extent)
            size = (wide * tall) ** 0.5 * scale
            if (
                0.065 < size < largest
                and 0 < x < 1
                and not any(self._in_the_way(thing, other) for other in self.things)
            ):
                self.things.append(thing)
                return

    def _sketch(self, name: str) -> tuple[list[Part], NDArray[np.float32], Box]:
        """Draw an object, facing either way; return its parts, all their points, and their extent."""
        parts = DRAWINGS[name](self.draw, self.view)
        points = np.array([point for part in parts for point in part.points], dtype=np.float32)
        if self.draw.random() < 0.5:
            points[:, 0] *= -1
        (left, bottom), (right, top) = points.min(0).tolist(), points.max(0).tolist()
        return parts, points, (left, bottom, right, top)

    def _band(self, name: str) -> tuple[float, float]:
        """Choose a stretch of ground lines, far and near, where `name` may stand."""
        margin = 0.02
        if self.place.lane:
            return self.horizon + margin, 0.97
        ends = [*[start for _, start in self.bands[1:]], 1.0]
        stretches = [
            (start + margin, min(end - margin, 0.97))
            for (surface, start), end in zip(self.bands, ends, strict=True)
            if surface in STANDS_ON[name] and end - start > 2.2 * margin
        ]
        if name == "lamp" and not stretches:  # on the grass that borders a road
            road = next(start for surface, start in self.bands if surface == "road")
            return road - margin, road - 0.01
        return self.draw.choice(stretches)

    def _lateral(self, name: str, wide: float) -> float:
        """Choose metres to the right of the middle of a road that leads to the horizon."""
        side = self.draw.choice((-1, 1))
        if "road" in STANDS_ON[name]:
            return side * LANE / 2
        gap = 0.5 if name in ("lamp", "person") else self.draw.uniform(0.6, 12)
        return side * (LANE + wide / 2 + gap + self.draw.random())

    def _in_the_way(self, thing: Thing, other: Thing) -> bool:
        """Say whether two objects would touch on the ground, or the new one hide too much of the other."""
        left, right = max(thing.box[0], other.box[0]), min(thing.box[2], other.box[2])
        if left >= right or "bird" in (thing.name, other.name):
            return False
        if 0.8 < thing.scale / other.scale < 1.25:
            return True
        top, low = max(thing.box[1], other.box[1]), min(thing.box[3], other.box[3])
        hidden = (right - left) * max(low - top, 0) / _area(other.box)
        return thing.scale > other.scale and hidden > (0.3 if other is self.things[0] else 0.8)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
