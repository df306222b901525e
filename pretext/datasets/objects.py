"""The objects of many pictures in four flat arrays, which avoids millions of small Python objects."""

from __future__ import annotations

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

    def target(self, index: int, height: int, width: int) -> Target:
        """Return the target of picture `index`; boxes are clipped to height×width, and empty ones removed."""
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        if self.boxes is None:
            return {"labels": self.labels[rows].clone()}
        edge = torch.tensor([width, height, width, height], dtype=torch.float32)
        boxes = self.boxes[rows].clamp(min=0).minimum(edge)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        target: Target = {
            "labels": self.labels[rows][kept],
            "boxes": tv_tensors.BoundingBoxes(boxes[kept], format="XYXY", canvas_size=(height, width)),
        }
        if self.difficult is not None:
            target["difficult"] = self.difficult[rows][kept]
        return target

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
