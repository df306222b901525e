"""Pictures of one size: decoded once into flat arrays on disk where they fit, on the fly where they do not.

A pack is a folder in the cache, named by what decides its content: the data's fingerprint, the size, and the
version of this format. It is written beside and renamed, so that it is whole or absent; it carries a checksum
of each file, and one that does not match is built again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision import tv_tensors

from pretext.datasets.base import BadImage, ImageDataset, Target
from pretext.datasets.fingerprints import digest
from pretext.datasets.packing import Pack, item_at, open_or_build
from pretext.datasets.view import View
from pretext.system.cache import size_limit_gb
from pretext.system.errors import UserError

BadImages = Literal["skip", "stop"]
PACK_GB = 4.0
"""Largest pack that is made; more is decoded on the fly. The variable PRETEXT_PACK_GB overrides it."""


def at_size(data: ImageDataset, size: int, *, bad_images: BadImages) -> ImageDataset:
    """Return the data set with every picture squashed to size×size, and so its other splits, when asked for.

    Args:
        data: Any data set.
        size: Side in pixels.
        bad_images: What to do about pictures that cannot be decoded: leave them out and say so, or stop.
            Where the data set is too large to be packed, they show only when they are reached, as `BadImage`.

    Raises:
        UserError: If `bad_images` is `stop` and there is one, if no picture can be decoded, or if the cache
            folder cannot be written.
    """
    if size < 1:
        raise UserError(f"{data.spec}: a picture's side is at least 1 pixel; {size} was given")
    if isinstance(data, PackedDataset | ResizedDataset):
        if data.size == size:
            return data
        data = data.base
    sized = _at_size(data, size, bad_images)
    sized.splits = SizedSplits(data, sized, size, bad_images)
    return sized


@final
class PackedDataset(View):
    """A data set in memory-mapped arrays; the pictures are pages of a file until they are touched.

    Attributes:
        images: Every picture. Writing to it does not reach the disk.
        label: Each picture's one class.
        clip_of: The clip that each picture is a frame of.
        objects: Their objects.
        masks: Their masks.
        skipped: The pictures that were left out, each with the reason.
        base: The data set that was packed.
    """

    def __init__(self, base: ImageDataset, size: int, pack: Pack) -> None:
        """Take what names the data set from `base` and what it holds from `pack`."""
        super().__init__(base)
        self.size = size
        self.images: UInt8[Tensor, "N 3 S S"] = pack.images
        self.label, self.clip_of, self.objects = pack.label, pack.clip_of, pack.objects
        self.masks: UInt8[Tensor, "N S S"] | None = pack.masks
        self.skipped: tuple[str, ...] = pack.skipped
        if self.skipped:
            self.notes += (
                f"{len(self.skipped)} of {len(base)} pictures could not be decoded and were left out: "
                f"{_some(self.skipped)}.",
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 S S"], Target]:
        """Return picture and target; see `ImageDataset`."""
        target: Target = {}
        if self.label is not None:
            target["label"] = self.label[index].clone()
        if self.clip_of is not None:
            target["clip"] = self.clip_of[index].clone()
        if self.objects is not None:
            target |= self.objects.target(index, self.size, self.size)
        if self.masks is not None:
            target["masks"] = tv_tensors.Mask(self.masks[index].clone())
        return self.images[index].clone(), target

    def origin(self, index: int) -> tuple[ImageDataset, int]:
        """Return `base` and the picture's index in it.

        A pack lacks the pictures that could not be decoded, so that an index may be up to as many higher in
        `base`. The first picture there with the same pixels at this size is taken.
        """
        if not self.skipped:
            return self.base, index
        for place in range(index, min(index + len(self.skipped) + 1, len(self.base))):
            try:
                if torch.equal(item_at(self.base, place, self.size)[0], self.images[index]):
                    return self.base, place
            except BadImage:
                continue
        return self, index

    @property
    def fingerprint(self) -> str:
        """The base data set's, or where pictures were left out a hash of it and of their names."""
        return digest(self.base.fingerprint, *self.skipped) if self.skipped else self.base.fingerprint


@final
class ResizedDataset(View):
    """A data set too large to pack, decoded on the fly."""

    def __init__(self, base: ImageDataset, size: int) -> None:
        """Show `base` at size×size."""
        super().__init__(base)
        self.size = size
        self.label, self.clip_of = base.label, base.clip_of

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 S S"], Target]:
        """Return picture and target; see `ImageDataset`."""
        return item_at(self.base, index, self.size)

    def origin(self, index: int) -> tuple[ImageDataset, int]:
        """Return `base` and the same index."""
        return self.base, index

    @property
    def fingerprint(self) -> str:
        """The base data set's."""
        return self.base.fingerprint


@final
class SizedSplits(Mapping[str, ImageDataset]):
    """The splits of a sized data set; one is brought to size when it is first asked for."""

    def __init__(self, base: ImageDataset, sized: ImageDataset, size: int, bad_images: BadImages) -> None:
        """Stand for `base.splits`, where `base` itself is done already."""
        self._base, self._size, self._bad_images = base.splits, size, bad_images
        self._done = {name: sized for name, part in base.splits.items() if part is base}

    def __getitem__(self, name: str) -> ImageDataset:
        if name not in self._done:
            sized = _at_size(self._base[name], self._size, self._bad_images)
            sized.splits = self
            self._done[name] = sized
        return self._done[name]

    def __contains__(self, name: object) -> bool:  # the inherited one would decode a split to say yes
        return name in self._base

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def _at_size(data: ImageDataset, size: int, bad_images: BadImages) -> ImageDataset:
    planes = 4 if "masks" in data.annotations else 3
    if len(data) * planes * size * size > size_limit_gb("PRETEXT_PACK_GB", PACK_GB) * 1e9:
        return ResizedDataset(data, size)
    packed = PackedDataset(data, size, open_or_build(data, size))
    bad = packed.skipped
    if bad and (bad_images == "stop" or not len(packed)):
        which = f"{len(bad)} of {len(data)}" if len(packed) else f"all {len(data)}"
        hint = "; --bad-images skip leaves them out" if len(packed) else ""
        raise UserError(f"{data.spec}: {which} pictures cannot be decoded, the first of them {bad[0]}{hint}")
    if bad:
        print(
            f"{data.spec}: left out {len(bad)} of {len(data)} pictures that cannot be decoded: {_some(bad)}",
            file=sys.stderr,
        )
    return packed


def _some(bad: tuple[str, ...], at_most: int = 5) -> str:
    rest = f"; and {len(bad) - at_most} more" if len(bad) > at_most else ""
    return "; ".join(bad[:at_most]) + rest
