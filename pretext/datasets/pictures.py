"""A batch of pictures of different sizes, from which views are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor
from torch.utils.data import get_worker_info


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size in one tensor, or of several sizes one after the other in one tensor."""

    pixels: Shaped[Tensor, "*B 3 H W"] | UInt8[Tensor, "N"]
    """uint8 in [0, 255]; of one size also float in [0, 1]. Of several sizes row by row and pixel by pixel, as they are
    decoded."""
    height: Int[Tensor, "*B"]
    """Height of each picture in pixels."""
    width: Int[Tensor, "*B"]
    """Width of each picture in pixels."""
    side: int
    """Side in pixels of the views to cut from them."""
    places: Int[Tensor, "*B 3"] | None = None
    """Where each picture begins in `pixels`, its height and its width; None for pictures of one size. It stays on the
    CPU, so that nothing waits for a GPU to find a picture."""

    def __len__(self) -> int:
        return len(self.height)

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.pixels.device

    @property
    def are_squares(self) -> bool:
        """Whether all pictures are squares of the views' side already."""
        return self.places is None and self.pixels.shape[-2:] == (self.side, self.side)

    def __iter__(self) -> Iterator[Shaped[Tensor, "3 _ _"]]:
        """Yield each picture, in the memory of the batch."""
        if self.places is None:
            yield from self.pixels
            return
        for start, height, width in self.places.tolist():
            picture = self.pixels[start : start + 3 * height * width]
            yield picture.view(height, width, 3).permute(2, 0, 1)

    def rows(self, change: Callable[[Tensor], Tensor]) -> Pictures:
        """Return other rows of the batch.

        Args:
            change: Selects or reshapes along the leading dimensions, as in `lambda tensor: tensor[:8]`.
        """
        height, width = change(self.height), change(self.width)
        if self.places is None:
            return replace(self, pixels=change(self.pixels), height=height, width=width)
        return replace(self, height=height, width=width, places=change(self.places))

    def to(self, device: torch.device) -> Pictures:
        """Return the batch on a device."""
        pixels, height, width = (each.to(device, non_blocking=True) for each in (self.pixels, self.height, self.width))
        return replace(self, pixels=pixels, height=height, width=width)

    def side_by_side(self) -> Shaped[Tensor, "B 3 H W"]:
        """Return all pictures in one tensor, each in the upper left corner of its part, and 0 elsewhere."""
        if self.places is None:
            return self.pixels
        _, height, width = self.places.amax(dim=0).tolist()
        found = self.pixels.new_zeros(len(self), height, width, 3).permute(0, 3, 1, 2)
        for part, picture in zip(found, self, strict=True):
            part[:, : picture.shape[1], : picture.shape[2]] = picture
        return found


def equally_large(pixels: Shaped[Tensor, "*B 3 H W"], side: int | None = None) -> Pictures:
    """Return pictures of one size.

    Args:
        pixels: The pictures.
        side: Side of the views in pixels; None is W.
    """
    height, width = (torch.full(pixels.shape[:-3], n, device=pixels.device) for n in pixels.shape[-2:])
    return Pictures(pixels, height, width, side or pixels.shape[-1])


def of_any_sizes(images: Sequence[UInt8[Tensor, "3 _ _"]], side: int) -> Pictures:
    """Return pictures of any sizes as one batch.

    Args:
        images: The pictures.
        side: Side of the views in pixels.
    """
    sizes = torch.tensor([image.shape[1:] for image in images], dtype=torch.int64).reshape(-1, 2)
    values = 3 * sizes.prod(dim=1)
    places = torch.cat([(values.cumsum(0) - values)[:, None], sizes], dim=1)
    batch = Pictures(_memory(int(values.sum())), sizes[:, 0], sizes[:, 1], side, places)
    for there, image in zip(batch, images, strict=True):
        there.copy_(image)
    if not len(images) or (sizes != sizes[0]).any():
        return batch
    height, width = sizes[0].tolist()
    pixels = batch.pixels.view(len(images), height, width, 3).permute(0, 3, 1, 2)
    return replace(batch, pixels=pixels, places=None)


def _memory(count: int) -> UInt8[Tensor, "N"]:
    """Return memory for pictures.

    In a worker process it is shared with the main process at once: to move it there takes as long as decoding.
    """
    if get_worker_info() is None or not count:
        return torch.empty(count, dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(count)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(shared)
