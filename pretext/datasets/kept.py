"""Pictures with their own shape, and more pixels than an encoder sees: views are cut from them."""

from __future__ import annotations

import dataclasses
from typing import final

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from pretext.datasets.base import ImageDataset, Target
from pretext.datasets.fitting import kept_annotations
from pretext.datasets.packed import (
    BadImages,
    PackedDataset,
    at_size,
    checked,
    fingerprint_without,
    fits_a_pack,
    left_out_notes,
)
from pretext.datasets.packing import Pack, item_at, open_or_build
from pretext.datasets.pictures import Pictures, equally_large, of_any_sizes
from pretext.datasets.view import View
from pretext.system.errors import UserError

VIEW_DETAIL = 3
"""Pixels of a stored picture's shorter side for each pixel of a view's. With SimCLR's crops of 8 % and more of a
photograph of 500×375 pixels, views then have 0.92 of the detail (mean absolute Laplacian) that the file has; 2 gives
0.84, and squashed pictures of the view's own size 0.49."""
USUAL_SHAPE = 4 / 3
"""Longer side divided by shorter side, for an estimate of a pack's size before a picture is decoded."""


def for_views(data: ImageDataset, size: int, *, bad_images: BadImages) -> ImageDataset:
    """Return the data set that views of a size are cut from: packed if it fits the limit, else decoded on the fly.

    Pictures keep their shape and are never enlarged. Where the spec says `resize=squash`, or all pictures are squares
    of this size, it is `at_size`.

    Args:
        data: One split of a data set.
        size: Side of the views in pixels.
        bad_images: See `at_size`.

    Raises:
        UserError: See `at_size`.
    """
    if data.squash or data.side == size:
        return at_size(data, size, bad_images=bad_images)
    if size < 1:
        raise UserError(f"{data.spec}: size={size}; views must be at least 1 pixel wide")
    shorter = data.load_size or VIEW_DETAIL * size
    pixels = shorter**2 * USUAL_SHAPE if data.side is None else min(shorter, data.side) ** 2  # never enlarged
    if not fits_a_pack(round(len(data) * 3 * pixels)):
        return KeptDataset(data, shorter, None)
    return KeptDataset(data, shorter, checked(open_or_build(data, shorter, "keep"), data, bad_images))


@final
class KeptDataset(View):
    """A data set whose pictures keep their shape, with a limit on their shorter side.

    Attributes:
        shorter: The most pixels of a picture's shorter side.
        packed: Whether the pictures lie decoded on disk; else each is decoded when it is read.
        skipped: The pictures that could not be decoded and were left out, each with the reason; empty if not packed.
    """

    def __init__(self, base: ImageDataset, shorter: int, pack: Pack | None) -> None:
        """Show `base`, from its pack if there is one."""
        super().__init__(base)
        self.annotations = kept_annotations(base.annotations, "keep")
        self.shorter, self.packed = shorter, pack is not None
        self.side = base.side and min(base.side, shorter)
        self.skipped: tuple[str, ...] = ()
        if pack is None:
            self.label, self.clip_of = base.label, base.clip_of
            self.objects = base.objects and dataclasses.replace(base.objects, boxes=None)
            return
        assert pack.sizes is not None
        self.label, self.clip_of, self.objects, self.skipped = pack.label, pack.clip_of, pack.objects, pack.skipped
        self._values, self._sizes = pack.images, pack.sizes
        self._ends = (3 * pack.sizes.prod(dim=1)).cumsum(0)
        self.notes += left_out_notes(base, self.skipped)

    def __len__(self) -> int:
        return len(self._sizes) if self.packed else len(self.base)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return picture and target, without boxes and masks; see `ImageDataset`."""
        if not self.packed:
            return item_at(self.base, index, self.shorter, "keep")
        return self.stored(index).clone(), self.known_target(index, *self._sizes[index].tolist())

    def stored(self, index: int) -> UInt8[Tensor, "3 H W"]:
        """Return a picture of a pack; writing to it does not change the file."""
        height, width = self._sizes[index].tolist()
        end = int(self._ends[index])
        return self._values[end - 3 * height * width : end].view(height, width, 3).permute(2, 0, 1)

    def origin(self, index: int) -> tuple[ImageDataset, int]:
        """Return `base` and the picture's index in it; this data set if a pack lacks some pictures of `base`."""
        return (self, index) if self.skipped else (self.base, index)

    @property
    def fingerprint(self) -> str:
        """See `fingerprint_without`."""
        return fingerprint_without(self.base, self.skipped)


def is_packed(data: ImageDataset) -> bool:
    """Return whether the pictures of a data set lie decoded on disk."""
    return isinstance(data, PackedDataset) or (isinstance(data, KeptDataset) and data.packed)


def packed_pictures(data: ImageDataset, indices: NDArray[np.int64], side: int) -> Pictures:
    """Return some pictures of a packed data set as one batch.

    Args:
        data: A data set that `is_packed`.
        indices: Which pictures.
        side: Side in pixels of the views to cut.
    """
    if isinstance(data, PackedDataset):
        return equally_large(data.images[torch.from_numpy(indices)], side)
    assert isinstance(data, KeptDataset)
    return of_any_sizes([data.stored(int(index)) for index in indices], side)
