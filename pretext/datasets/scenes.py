"""`scenes`: the embedded data set of drawn pictures, ten classes in fitting places; it needs no download.

The drawing program is in `scenery`.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision import tv_tensors

from pretext.datasets.base import ImageDataset, Target
from pretext.datasets.fingerprints import digest
from pretext.datasets.scenery.composition import CLASSES, Scene, compose
from pretext.datasets.scenery.painting import paint_scene
from pretext.system.errors import UserError
from pretext.system.specs import format_spec

VERSION = 1
"""Version of the drawing code; raise it whenever any picture or target changes."""
SPLITS = ("train", "val", "test")
FEWEST_PIXELS = 6
"""Objects with fewer visible pixels are not annotated."""
DIFFICULT_BELOW = 0.25
"""Objects with a smaller visible share are difficult."""
SMALL_SHARE = 0.004
"""Objects that cover a smaller share of the picture are difficult."""


@dataclass(frozen=True)
class Options:
    """Options of `scenes?…`."""

    train: int = 10_000
    """Number of training pictures, at least 1."""
    val: int = 1_000
    """Number of validation pictures, at least 1."""
    test: int = 2_000
    """Number of test pictures, at least 1."""
    size: int = 64
    """Side of the square pictures in pixels, 16 to 1024."""
    seed: int = 0
    """Seed of the pictures, 0 or more; every seed draws different ones."""

    def __post_init__(self) -> None:
        for name in SPLITS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; expected 1 picture or more")
        if not 16 <= self.size <= 1024:
            raise ValueError(f"size={self.size}; expected 16 to 1024 pixels")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}; expected 0 or more")


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Open train, val and test.

    Args:
        path: Must be empty, because nothing is read from disk.
        options: Number and size of the pictures, and the seed.

    Raises:
        UserError: If `path` is not empty.
    """
    if path:
        raise UserError(
            f"scenes:{path}: scenes are drawn, not read from disk; write scenes or scenes?size=128, without a path"
        )
    return {name: Scenes(name, options) for name in SPLITS}


class Scenes(ImageDataset):
    """One split of the drawn scenes. Picture `index` depends only on (seed, split, index) and the size.

    The `label` of a picture is the class of the object with the largest visible box. An object is `difficult` if
    less than a quarter of it is visible or it covers less than 0.4 % of the picture.
    """

    classes = CLASSES
    annotations = frozenset({"label", "labels", "boxes", "masks"})
    synthetic = True

    def __init__(self, name: str, options: Options) -> None:
        self.spec = format_spec("scenes", "", options)
        self.name = name
        self.options, self.side = options, options.size

    def __len__(self) -> int:
        length: int = getattr(self.options, self.name)
        return length

    @property
    def fingerprint(self) -> str:
        """A hash of everything that determines the pixels, including the version of the drawing code."""
        options = self.options
        return digest("scenes", *map(str, (VERSION, options.seed, self.name, len(self), options.size)))

    def scene(self, index: int) -> Scene:
        """Return the composition of picture `index`, which does not depend on the size.

        Raises:
            IndexError: If there is no such picture.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.spec}: {self.name} has {len(self)} pictures, no number {index}")
        return compose(Random(f"scenes {self.options.seed} {self.name} {index}"))

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Draw picture `index` and its target."""
        scene = self.scene(index)
        size = self.options.size
        grain = np.random.default_rng((self.options.seed, SPLITS.index(self.name), index))
        painting = paint_scene(scene, size, grain)
        labels, boxes, difficult = [], [], []
        mask = np.zeros_like(painting.owner)
        for number, (thing, visible) in enumerate(zip(scene.things, painting.visible, strict=True), 1):
            owned = painting.owner == number
            count = int(np.count_nonzero(owned))
            if count < FEWEST_PIXELS:
                continue
            columns, rows = owned.any(0).nonzero()[0], owned.any(1).nonzero()[0]
            boxes.append([int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1])
            labels.append(CLASSES.index(thing.name))
            difficult.append(visible < DIFFICULT_BELOW or count < SMALL_SHARE * size * size)
            mask[owned] = labels[-1] + 1
        largest = max(range(len(boxes)), key=lambda k: (boxes[k][2] - boxes[k][0]) * (boxes[k][3] - boxes[k][1]))
        target: Target = {
            "label": torch.tensor(labels[largest]),
            "labels": torch.tensor(labels),
            "boxes": tv_tensors.BoundingBoxes(
                torch.from_numpy(np.array(boxes, dtype=np.float32)), format="XYXY", canvas_size=(size, size)
            ),
            "difficult": torch.tensor(difficult),
            "masks": tv_tensors.Mask(torch.from_numpy(mask)),
        }
        return torch.from_numpy(painting.pixels.transpose(2, 0, 1).copy()), target
