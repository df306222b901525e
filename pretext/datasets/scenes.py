"""`scenes`: the embedded data set, drawn pictures of ten classes in places that suit them; no download."""

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

VERSION = 1  # of the drawing code: raise it whenever any picture or target changes
SPLITS = ("train", "val", "test")
FEWEST_PIXELS = 6  # an object that shows fewer is not annotated
DIFFICULT_BELOW = 0.25  # visible share under which an object is difficult
SMALL_SHARE = 0.004  # share of the picture's area under which an object is difficult


@dataclass(frozen=True)
class Options:
    """Options of `scenes?…`."""

    train: int = 10_000
    """Pictures to train on."""
    val: int = 1_000
    """Pictures to choose settings on."""
    test: int = 2_000
    """Pictures to report on."""
    size: int = 64
    """Side of the pictures in pixels, 16 to 1024."""
    seed: int = 0
    """Another seed draws other pictures."""

    def __post_init__(self) -> None:
        for name in SPLITS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 picture is needed")
        if not 16 <= self.size <= 1024:
            raise ValueError(f"size={self.size}: expected 16 to 1024 pixels")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: expected 0 or more")


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Open train, val and test.

    Args:
        path: Must be empty: there is nothing on disk.
        options: How many pictures, how large, of which seed.

    Raises:
        UserError: If a path was given.
    """
    if path:
        raise UserError(f"scenes:{path}: scenes are drawn, not read; write scenes or scenes?size=128, without a path")
    return {name: Scenes(name, options) for name in SPLITS}


class Scenes(ImageDataset):
    """One split of the drawn scenes. Picture `index` depends on (seed, split, index) and the size alone.

    The `label` of a picture is the class of the object with the largest visible box. An object is `difficult`
    where less than a quarter of it is visible, or it covers less than 0.4 % of the picture.
    """

    classes = CLASSES
    annotations = frozenset({"label", "labels", "boxes", "masks"})
    synthetic = True

    def __init__(self, name: str, options: Options) -> None:
        self.spec = format_spec("scenes", "", options)
        self.name = name
        self.options = options

    def __len__(self) -> int:
        length: int = getattr(self.options, self.name)
        return length

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the pixels, the version of the drawing code among it."""
        options = self.options
        return digest("scenes", *map(str, (VERSION, options.seed, self.name, len(self), options.size)))

    def scene(self, index: int) -> Scene:
        """Return what picture `index` shows, at no particular size.

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
            mine = painting.owner == number
            count = int(np.count_nonzero(mine))
            if count < FEWEST_PIXELS:
                continue
            columns, rows = mine.any(0).nonzero()[0], mine.any(1).nonzero()[0]
            boxes.append([int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1])
            labels.append(CLASSES.index(thing.name))
            difficult.append(visible < DIFFICULT_BELOW or count < SMALL_SHARE * size * size)
            mask[mine] = labels[-1] + 1
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
