"""Compose a scene: choose its place and light, and the position and size of its objects.

Lengths are in picture sides (0 to 1, y down) or in metres, so a scene is the same at every size in pixels. The
camera looks horizontally from `camera` metres above flat ground. One metre at the ground line `y` therefore
measures `(y - horizon) / camera` picture sides, and all sizes follow from this.
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
from pretext.datasets.scenery.shapes import Drawing, Part, Setting
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
"""Minimum square root of the area of the subject's box, in picture sides."""


@dataclass(frozen=True)
class Thing:
    """An object at its position in the scene."""

    name: str
    parts: list[Part]
    x: float
    y: float
    """Ground line that it stands on; for a bird, its middle."""
    scale: float
    """Picture sides per metre at its distance."""
    points: NDArray[np.float32]
    """Points of all parts in metres, N×2."""
    extent: Box
    """Left, bottom, right and top of the points, in metres."""

    @property
    def box(self) -> Box:
        """XYXY box of the whole object in picture sides, including hidden parts and parts outside."""
        left, bottom, right, top = self.extent
        return (
            self.x + left * self.scale,
            self.y - top * self.scale,
            self.x + right * self.scale,
            self.y - bottom * self.scale,
        )


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows, independent of its size in pixels."""

    place: str
    light: Light
    horizon: float
    camera: float
    vanishing: float
    """Horizontal position of a road's vanishing point."""
    bands: tuple[tuple[str, float], ...]
    """Each surface and the ground line y where it begins, from the horizon to the viewer."""
    backdrop: str
    things: tuple[Thing, ...]
    """Objects, the farthest first."""
    seed: int
    """Seed of textures and small colour choices."""

    def surface(self, x: float, y: float) -> str:
        """Return what is at a point of the picture: `sky` or a surface."""
        if y <= self.horizon:
            return "sky"
        if PLACES[self.place].lane and abs(x - self.vanishing) * self.camera / (y - self.horizon) < LANE:
            return "road"
        return [surface for surface, start in self.bands if start <= y][-1]


def compose(rng: Random) -> Scene:
    """Choose the subject, a fitting place, a light, and then further objects.

    If the subject would be too small on the ground of a place, another place is drawn.
    """
    subject = rng.choice(CLASSES)
    while True:
        scene = _composed(rng, subject)
        if scene is not None:
            return scene


def _composed(rng: Random, subject: str) -> Scene | None:
    name = rng.choice([name for name, place in PLACES.items() if subject in place.classes])
    place = PLACES[name]
    light = LIGHTS[rng.choice(place.lights)]
    horizon = rng.uniform(0.5, 0.75) if subject == "bird" else rng.uniform(0.28, 0.55)
    starts = [rng.uniform(low, high) for _, low, high in place.bands]
    bands = tuple(
        (surface, horizon + start * (1 - horizon)) for (surface, *_), start in zip(place.bands, starts, strict=True)
    )
    stage = _Stage(rng, place, horizon, bands, Setting(place.lane, light.night))
    stage.set_subject(subject)
    if _area(stage.things[0].box) < SMALLEST_SUBJECT**2:
        return None
    names, weights = list(place.classes), list(place.classes.values())
    for _ in range(rng.choice((1, 2, 3, 4, 5, 6))):
        herd = rng.random() < 0.25 and subject != "house"
        stage.add(subject if herd else rng.choices(names, weights)[0])
    return Scene(
        place=name,
        light=light,
        horizon=horizon,
        camera=stage.camera,
        vanishing=stage.vanishing,
        bands=bands,
        backdrop=rng.choice(place.backdrops),
        things=tuple(sorted(stage.things, key=lambda thing: thing.scale)),
        seed=rng.getrandbits(32),
    )


class _Stage:
    """A scene under construction. The subject determines the camera height for all further objects."""

    def __init__(
        self, rng: Random, place: Place, horizon: float, bands: tuple[tuple[str, float], ...], setting: Setting
    ) -> None:
        self.rng, self.place, self.horizon, self.bands, self.setting = rng, place, horizon, bands, setting
        self.camera = rng.uniform(1.5, 4.0)
        self.vanishing = rng.uniform(0.2, 0.8)
        self.things: list[Thing] = []

    def set_subject(self, name: str) -> None:
        """Place the subject, near and large."""
        rng = self.rng
        parts, points, extent = self._sketch(name)
        left, bottom, right, top = extent
        wide, tall = right - left, top - bottom
        scale = min(rng.uniform(0.38, 0.66) / (wide * tall) ** 0.5, 0.9 / tall, 0.95 / wide)
        slack = max(1 - wide * scale, 0) / 2
        x = 0.5 + rng.uniform(-slack, slack)
        if name == "bird":
            scale = min(scale, (self.horizon - 0.04) / tall)
            y = rng.uniform(0.02 + top * scale, self.horizon - 0.02 + bottom * scale)
        else:
            far, near = self._band(name)
            scale = min(scale, (near - 0.03) / tall, (near - self.horizon) / 0.8)
            low = max(far, 0.03 + tall * scale, self.horizon + 0.8 * scale)
            y = rng.uniform(min(low, near), near)
            self.camera = (y - self.horizon) / scale
            if self.place.lane:
                self.vanishing = x - self._lateral(name, wide) * scale
        self.things.append(Thing(name, parts, x, y, scale, points, extent))

    def add(self, name: str) -> None:
        """Place one more object, smaller than the subject; do nothing if 12 tries find no room."""
        rng = self.rng
        parts, points, extent = self._sketch(name)
        left, bottom, right, top = extent
        wide, tall = right - left, top - bottom
        largest = 0.75 * (_area(self.things[0].box) ** 0.5)
        for _ in range(12):
            if name == "bird":
                scale = rng.uniform(0.08, 0.3)
                x, y = rng.random(), rng.uniform(0.05, max(self.horizon - 0.08, 0.06))
            else:
                far, near = self._band(name)
                y = far + (near - far) * rng.random() ** 1.3
                scale = (y - self.horizon) / self.camera
                x = rng.uniform(-0.02, 1.02)
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
        """Draw an object, mirrored at random; return its parts, their points (N×2), and the extent."""
        parts = DRAWINGS[name](self.rng, self.setting)
        points = np.array([point for part in parts for point in part.points], dtype=np.float32)
        if self.rng.random() < 0.5:
            points[:, 0] *= -1
        (left, bottom), (right, top) = points.min(0).tolist(), points.max(0).tolist()
        return parts, points, (left, bottom, right, top)

    def _band(self, name: str) -> tuple[float, float]:
        """Choose a range of ground lines, (far, near), where `name` may stand."""
        margin = 0.02
        if self.place.lane:
            return self.horizon + margin, 0.97
        ends = [*[start for _, start in self.bands[1:]], 1.0]
        stretches = [
            (start + margin, min(end - margin, 0.97))
            for (surface, start), end in zip(self.bands, ends, strict=True)
            if surface in STANDS_ON[name] and end - start > 2.2 * margin
        ]
        if name == "lamp" and not stretches:  # on the grass beside a road
            road = next(start for surface, start in self.bands if surface == "road")
            return road - margin, road - 0.01
        return self.rng.choice(stretches)

    def _lateral(self, name: str, wide: float) -> float:
        """Choose the distance in metres to the right of the centre of a road to the horizon."""
        side = self.rng.choice((-1, 1))
        if "road" in STANDS_ON[name]:
            return side * LANE / 2
        gap = 0.5 if name in ("lamp", "person") else self.rng.uniform(0.6, 12)
        return side * (LANE + wide / 2 + gap + self.rng.random())

    def _in_the_way(self, thing: Thing, other: Thing) -> bool:
        """Return whether two objects would overlap on the ground, or the new one hide too much of the other."""
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
