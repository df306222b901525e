"""Regions of a picture: a grid, annotated objects, the whole image, or a context with a hidden centre; and their class.

A region is a box, in shares of the picture's sides. Its window is what the encoder sees: the box itself (grid, image),
the box with a margin (object), or the surroundings of a box that is hidden (context).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pretext.datasets.base import IGNORE, ImageDataset, Target
from pretext.system.ranges import check_range

Mode = Literal["grid", "objects", "images", "contexts"]
Box = tuple[float, float, float, float]
"""Left, top, width and height as shares of the picture's sides."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
MIN_CLASS_SHARE = 0.1
"""A mask's class labels a region if it covers at least this share of it."""
PATCH = np.dtype([("image", "<i4"), ("x", "<f4"), ("y", "<f4"), ("w", "<f4"), ("h", "<f4"), ("label", "<i4")])
"""Row of a patch table: the picture's number in its split, the region's box, its class or -1."""


@dataclass(frozen=True)
class Regions:
    """Which regions of a picture to encode, their windows, and how to pool their maps."""

    mode: Mode = "grid"
    """What to index: patches on a grid, annotated objects, whole images, or contexts with a hidden centre."""
    grid: int = 3
    """Patches per side of the grid; large patches overlap."""
    scales: tuple[float, ...] = (0.5,)
    """Side of the grid's patches as a share of the picture's side; one grid per value."""
    margin: float = 0.1
    """Margin around an object on each side, as a share of its box's side."""
    hole: float = 0.5
    """Side of a context's hidden centre, as a share of its window's side."""
    pool: int | None = None
    """Average each feature map to this many cells per side; if omitted, 2 for contexts and 1 otherwise."""

    def __post_init__(self) -> None:
        check_range(self, "grid", least=1)
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"scales is {self.scales}; give one or more values above 0 and up to 1")
        check_range(self, "margin", least=0)
        check_range(self, "hole", above=0, below=1)
        check_range(self, "pool", least=1)

    @property
    def cells(self) -> int:
        """Cells per side to which a map is averaged."""
        return self.pool or (2 if self.mode == "contexts" else 1)

    @property
    def reach(self) -> float:
        """Side of a region's window, as a multiple of its box's side."""
        return {"objects": 1 + 2 * self.margin, "contexts": 1 / self.hole}.get(self.mode, 1.0)

    def picture_size(self, input_size: int) -> int:
        """Return the side in pixels at which pictures are read; doubled if parts of a picture are cut out."""
        return input_size * (2 if self.mode in ("grid", "objects") else 1)

    def boxes(self, target: Target, size: int) -> tuple[list[Box], list[int]]:
        """Return a picture's regions, and the class of each or -1.

        With masks, a grid patch or hidden centre gets the class with the most pixels in it, if that covers at least
        `MIN_CLASS_SHARE`. With boxes alone it gets the class of the largest object whose centre lies in it. Objects
        marked difficult are not regions.

        Args:
            target: The picture's annotations.
            size: The picture's side in pixels.
        """
        if self.mode == "images":
            return [WHOLE], [int(target.get("label", -1))]
        if self.mode == "objects":
            return _objects(target, size)
        if self.mode == "contexts":
            boxes = [((1 - self.hole) / 2, (1 - self.hole) / 2, self.hole, self.hole)]
        else:
            boxes = [box for scale in self.scales for box in _grid(self.grid, scale)]
        return boxes, [_class_in(target, box, size) for box in boxes]


def regions_of(data: ImageDataset) -> Regions:
    """Return the regions by which an encoder is judged: objects, or whole pictures of data without boxes."""
    return Regions(mode="objects" if {"labels", "boxes"} <= data.annotations else "images")


def labelled_regions(data: ImageDataset) -> int | None:
    """Return how many regions of a split have a class; None if that is known only after decoding."""
    if regions_of(data).mode == "objects":
        return None if data.objects is None else data.objects.easy
    return None if data.label is None else int((data.label >= 0).sum())


def patch_rows(image: int, boxes: Sequence[Box], labels: Sequence[int]) -> NDArray[Any]:
    """Return one picture's rows of a patch table."""
    return np.array([(image, *box, label) for box, label in zip(boxes, labels, strict=True)], dtype=PATCH)


def boxes_of(table: NDArray[Any]) -> Float[Tensor, "N 4"]:
    """Return the boxes of a patch table as a tensor."""
    return torch.from_numpy(np.stack([table[key] for key in "xywh"], axis=1))


def expand(boxes: Float[Tensor, "K 4"], reach: float) -> Float[Tensor, "K 4"]:
    """Return boxes scaled by `reach` about their centres."""
    sides = boxes[:, 2:] * reach
    return torch.cat([boxes[:, :2] + (boxes[:, 2:] - sides) / 2, sides], dim=1)


def _grid(count: int, scale: float) -> list[Box]:
    starts = np.linspace(0, 1 - scale, count) if count > 1 else [(1 - scale) / 2]
    return [(float(x), float(y), scale, scale) for y in starts for x in starts]


def _objects(target: Target, size: int) -> tuple[list[Box], list[int]]:
    boxes, labels = [], []
    difficult = target.get("difficult", torch.zeros(len(target["labels"]), dtype=torch.bool))
    for (x0, y0, x1, y1), label, hard in zip(
        target["boxes"].tolist(), target["labels"].tolist(), difficult.tolist(), strict=True
    ):
        if not hard:
            boxes.append((x0 / size, y0 / size, (x1 - x0) / size, (y1 - y0) / size))
            labels.append(label)
    return boxes, labels


def _class_in(target: Target, box: Box, size: int) -> int:
    x, y, w, h = box
    if "masks" in target:
        rows, columns = (slice(round(a * size), round((a + b) * size)) for a, b in ((y, h), (x, w)))
        inside = target["masks"][rows, columns].reshape(-1).long()
        counts = torch.bincount(inside, minlength=IGNORE + 1)
        counts[[0, IGNORE]] = 0
        return int(counts.argmax()) - 1 if counts.max() >= MIN_CLASS_SHARE * max(len(inside), 1) else -1
    if not {"boxes", "labels"} <= target.keys():
        return -1
    largest, found = 0.0, -1
    for (x0, y0, x1, y1), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
        centre_x, centre_y = (x0 + x1) / 2 / size, (y0 + y1) / 2 / size
        area = (x1 - x0) * (y1 - y0)
        if x <= centre_x < x + w and y <= centre_y < y + h and area > largest:
            largest, found = area, label
    return found


def region_noun(mode: Mode) -> str:
    """Return what the regions of a mode are called, in the plural."""
    return "patches" if mode == "grid" else mode
