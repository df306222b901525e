"""The objects of many pictures in four flat arrays, which avoids millions of small Python objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision import tv_tensors

from pretext.datasets.base import Target
from pretext.datasets.fingerprints import digest

Listed = tuple[Sequence[int], Sequence[Sequence[float]], Sequence[bool]]
"""The labels, boxes and difficult flags of one picture."""


@dataclass(frozen=True)
class Objects:
    """Labels, boxes and difficult flags; picture i has rows `offsets[i]` to `offsets[i + 1]` (exclusive)."""

    labels: Int[Tensor, "M"]
    offsets: Int[Tensor, "N+1"]
    boxes: Float[Tensor, "M 4"] | None = None
    """Corners XYXY in pixels of the picture."""
    difficult: Bool[Tensor, "M"] | None = None

    @classmethod
    def gather(cls, pictures: Iterable[Listed]) -> Objects:
        """Return the objects of the pictures, given one by one."""
        labels: list[int] = []
        boxes: list[Sequence[float]] = []
        difficult: list[bool] = []
        offsets = [0]
        for some_labels, some_boxes, some_difficult in pictures:
            labels += some_labels
            boxes += some_boxes
            difficult += some_difficult
            offsets.append(len(labels))
        return cls(
            labels=torch.tensor(labels, dtype=torch.int64),
            offsets=torch.tensor(offsets, dtype=torch.int64),
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            difficult=torch.tensor(difficult, dtype=torch.bool),
        )

    @property
    def easy(self) -> int:
        """Number of objects that are not marked difficult."""
        return len(self.labels) if self.difficult is None else int((~self.difficult).sum())

    def target(self, index: int, height: int, width: int) -> Target:
        """Return the target of picture `index`; boxes are clipped to height×width, see `_clipped`."""
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        target: Target = {"labels": self.labels[rows].clone()}
        if self.boxes is not None:
            boxes = _clipped(self.boxes[rows], torch.tensor([width, height], dtype=torch.float32))
            target["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
        if self.difficult is not None:
            target["difficult"] = self.difficult[rows].clone()
        return target

    def mended(self, sizes: Sequence[tuple[int, int]]) -> tuple[Objects, dict[str, Bool[Tensor, "N"]]]:
        """Return the objects with faulty boxes put right, and the pictures of each fault.

        Every object stays, because a faulty box says nothing against the class.

        Args:
            sizes: Height and width of each picture, or nothing if they are unknown.
        """
        if self.boxes is None or not len(self.boxes):
            return self, {}
        picture = torch.arange(len(self.offsets) - 1).repeat_interleave(self.offsets.diff())
        swapped = (self.boxes[:, 2:] < self.boxes[:, :2]).any(dim=1)
        boxes = torch.cat(
            [self.boxes[:, :2].minimum(self.boxes[:, 2:]), self.boxes[:, :2].maximum(self.boxes[:, 2:])], 1
        )
        empty = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1)
        edge = torch.tensor(sizes, dtype=torch.float32).flip(1)[picture] if sizes else torch.full((1, 2), torch.inf)
        outside = ~empty & ((boxes[:, :2] >= edge) | (boxes[:, 2:] <= 0)).any(dim=1)
        faults = {
            "have swapped corners, which were put in order": swapped,
            "are empty and count as one pixel": empty,
            "lie outside the picture and count as the pixel at its edge": outside,
        }
        found = {
            fault: torch.zeros(len(self.offsets) - 1, dtype=torch.bool) for fault, rows in faults.items() if rows.any()
        }
        for fault, pictures in found.items():
            pictures[picture[faults[fault]]] = True
        if not found:
            return self, {}
        mended = torch.where((empty | outside)[:, None], _clipped(boxes, edge), boxes)
        return dataclasses.replace(self, boxes=mended), found

    def take(self, indices: Int[Tensor, "K"]) -> Objects:
        """Return the objects of the pictures at `indices`, in their order."""
        counts = self.offsets.diff()[indices]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        rows = torch.arange(int(offsets[-1])) + (self.offsets[indices] - offsets[:-1]).repeat_interleave(counts)
        return Objects(
            labels=self.labels[rows],
            offsets=offsets,
            boxes=None if self.boxes is None else self.boxes[rows],
            difficult=None if self.difficult is None else self.difficult[rows],
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return those of the four arrays that are not None, by name."""
        named = {
            "labels": self.labels,
            "offsets": self.offsets,
            "boxes": self.boxes,
            "difficult": self.difficult,
        }
        return {name: tensor.numpy() for name, tensor in named.items() if tensor is not None}

    def digest(self) -> str:
        """Return a hash of all arrays."""
        return digest(*(part for name, array in self.arrays().items() for part in (name, array.tobytes())))


def _clipped(boxes: Float[Tensor, "K 4"], edge: Float[Tensor, "... 2"]) -> Float[Tensor, "K 4"]:
    """Return boxes inside a picture of the width and height `edge`; those without an area there become one pixel wide.

    A box in the frame of a resized picture may be thinner than one pixel; it stays as it is.
    """
    low, high = boxes[:, :2].clamp(min=0).minimum(edge), boxes[:, 2:].clamp(min=0).minimum(edge)
    pixel = low.minimum((edge - 1).clamp(min=0))
    empty = high <= low
    return torch.cat([torch.where(empty, pixel, low), torch.where(empty, pixel + 1, high)], dim=1)
