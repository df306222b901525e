"""A batch of pictures of different sizes, from which views are cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
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
    # pixel by pixel, as pictures are decoded: three times as fast to resize
    pixels = torch.empty(len(images), highest, widest, 3, dtype=torch.uint8)
    if get_worker_info() is not None and len(images):
        # a worker's batch goes there anyway, and copying it takes as long as decoding
        pixels.share_memory_()  # type: ignore[no-untyped-call]
    pixels = pixels.zero_().permute(0, 3, 1, 2)
    for canvas, image in zip(pixels, images, strict=True):
        canvas[:, : image.shape[1], : image.shape[2]] = image
    return Pictures(pixels, sizes[:, 0], sizes[:, 1], side, fills)
