"""A batch of pictures of different sizes, from which views are cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor
from torch.utils.data import get_worker_info


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side in one tensor: each lies in the upper left corner, and the rest of its canvas is 0."""

    pixels: Shaped[Tensor, "*B 3 H W"]
    """uint8 in [0, 255], or float in [0, 1]."""
    height: Int[Tensor, "*B"]
    """Height of each picture in pixels, at most H."""
    width: Int[Tensor, "*B"]
    """Width of each picture in pixels, at most W."""
    side: int
    """Side in pixels of the views to cut from them."""
    fills: bool
    """Whether every picture fills its canvas."""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def are_squares(self) -> bool:
        """Whether all pictures are squares of the views' side already."""
        return self.fills and self.pixels.shape[-2:] == (self.side, self.side)

    def map(self, change: Callable[[Tensor], Tensor]) -> Pictures:
        """Return a copy with `change` applied to every tensor."""
        return Pictures(change(self.pixels), change(self.height), change(self.width), self.side, self.fills)


def equally_large(pixels: Shaped[Tensor, "*B 3 H W"], side: int | None = None) -> Pictures:
    """Return pictures that fill their canvas.

    Args:
        pixels: The pictures.
        side: Side of the views in pixels; None is W.
    """
    height, width = (torch.full(pixels.shape[:-3], n, device=pixels.device) for n in pixels.shape[-2:])
    return Pictures(pixels, height, width, side or pixels.shape[-1], fills=True)


def side_by_side(images: Sequence[Shaped[Tensor, "3 _ _"]], side: int) -> Pictures:
    """Return pictures of any sizes as one batch.

    Args:
        images: The pictures, uint8.
        side: Side of the views in pixels.
    """
    sizes = torch.tensor([image.shape[1:] for image in images], dtype=torch.int64).reshape(-1, 2)
    highest, widest = sizes.amax(dim=0).tolist() if len(images) else (0, 0)
    fills = bool((sizes == sizes.new_tensor([highest, widest])).all())
    pixels = _canvases(len(images), highest, widest)
    for canvas, image in zip(pixels, images, strict=True):
        height, width = image.shape[1:]
        canvas[:, :height, :width] = image
        canvas[:, :height, width:] = 0
        canvas[:, height:] = 0
    return Pictures(pixels, sizes[:, 0], sizes[:, 1], side, fills)


def _canvases(count: int, height: int, width: int) -> UInt8[Tensor, "B 3 H W"]:
    """Return memory for pictures, pixel by pixel as they are decoded: three times as fast to resize.

    In a worker process it is shared with the main process at once: to move it there takes as long as decoding.
    """
    shape = (count, height, width, 3)
    if get_worker_info() is None or not count:
        return torch.empty(shape, dtype=torch.uint8).permute(0, 3, 1, 2)
    shared = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape).permute(0, 3, 1, 2)
