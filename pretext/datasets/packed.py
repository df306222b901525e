"""Every picture at one size: packed into arrays on disk if they fit the limit, else decoded on the fly.

A pack is a folder in the cache. Its name is a hash of all that determines its content: the fingerprint of the
data, the size, and the version of the format. See `packing`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision import tv_tensors

from pretext.datasets.base import BadImage, Fault, ImageDataset, Target
from pretext.datasets.fingerprints import digest
from pretext.datasets.fitting import kept_annotations
from pretext.datasets.packing import Pack, item_at, open_or_build
from pretext.datasets.view import View
from pretext.system.cache import size_limit_gb
from pretext.system.distributed import rank
from pretext.system.errors import UserError

BadImages = Literal["skip", "stop"]
SquareFit = Literal["squash", "crop", "pad"]
PACK_GB = 4.0
"""Maximum size of a pack in gigabytes; a larger split is decoded on the fly. The environment variable
PRETEXT_PACK_GB overrides it."""


def at_size(data: ImageDataset, size: int, *, bad_images: BadImages, fit: SquareFit = "squash") -> SizedDataset:
    """Return the data set with every picture at size×size; its other splits follow on first access.

    Args:
        data: Any data set. Where its spec says `resize=squash`, every picture is squashed.
        size: Side of the pictures in pixels, at least 1.
        fit: How pictures that are no squares get there; see `pretext.datasets.fitting`.
        bad_images: What to do with pictures that cannot be decoded: `skip` leaves them out and reports them on
            stderr and in the notes; `stop` raises. A split too large to pack raises `BadImage` at each instead.

    Raises:
        UserError: If `bad_images` is `stop` and a picture cannot be decoded, if no picture can be decoded, or if
            the cache folder cannot be written.
    """
    if size < 1:
        raise UserError(f"{data.spec}: size={size}; pictures must be at least 1 pixel wide")
    source = data.base if isinstance(data, PackedDataset | ResizedDataset) else data
    actual = fit_for(source, fit)
    if isinstance(data, PackedDataset | ResizedDataset) and data.size == size and data.fit in (fit, actual):
        return data
    sized = _at_size(source, size, actual, bad_images)
    sized.splits = SizedSplits(source, sized, size, actual, bad_images)
    return sized


@final
class PackedDataset(View):
    """A data set in memory-mapped arrays; pictures are read from disk on first access.

    Attributes:
        size: Side S of the pictures in pixels.
        fit: How the pictures got this side.
        images: All pictures. Writing to it does not change the file.
        masks: All masks, if there are any.
        skipped: The pictures that could not be decoded and were left out, each with the reason.
    """

    def __init__(self, base: ImageDataset, size: int, fit: SquareFit, pack: Pack) -> None:
        """Take the description of the data set from `base` and its content from `pack`."""
        super().__init__(base)
        self.size, self.side, self.fit = size, size, fit
        self.annotations = kept_annotations(base.annotations, fit)
        self.images: UInt8[Tensor, "N 3 S S"] = pack.images
        self.label, self.clip_of, self.objects = pack.label, pack.clip_of, pack.objects
        self.masks: UInt8[Tensor, "N S S"] | None = pack.masks
        self.skipped: tuple[str, ...] = pack.skipped
        self.notes += left_out_notes(base, self.skipped)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 S S"], Target]:
        """Return picture and target; see `ImageDataset`."""
        target = self.known_target(index, self.size, self.size)
        if self.masks is not None:
            target["masks"] = tv_tensors.Mask(self.masks[index].clone())
        return self.images[index].clone(), target

    def origin(self, index: int) -> tuple[ImageDataset, int]:
        """Return `base` and the picture's index in it.

        The pack lacks the pictures that could not be decoded, so the index in `base` is larger by at most their
        number. The first picture in that range with the same pixels at this size is the one.
        """
        if not self.skipped:
            return self.base, index
        for place in range(index, min(index + len(self.skipped) + 1, len(self.base))):
            try:
                if torch.equal(item_at(self.base, place, self.size, self.fit)[0], self.images[index]):
                    return self.base, place
            except BadImage:
                continue
        return self, index

    @property
    def fingerprint(self) -> str:
        """See `fingerprint_without`."""
        return fingerprint_without(self.base, self.skipped)


@final
class ResizedDataset(View):
    """A data set that is too large to pack; each picture is decoded and resized when it is read.

    Attributes:
        size: Side S of the pictures in pixels.
        fit: How the pictures get this side.
    """

    def __init__(self, base: ImageDataset, size: int, fit: SquareFit = "squash") -> None:
        """Show `base` at size×size."""
        super().__init__(base)
        self.size, self.side, self.fit = size, size, fit
        self.annotations = kept_annotations(base.annotations, fit)
        self.label, self.clip_of = base.label, base.clip_of

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 S S"], Target]:
        """Return picture and target; see `ImageDataset`."""
        return item_at(self.base, index, self.size, self.fit)

    def origin(self, index: int) -> tuple[ImageDataset, int]:
        """Return `base` and the same index."""
        return self.base, index

    @property
    def fingerprint(self) -> str:
        """The fingerprint of `base`."""
        return self.base.fingerprint


SizedDataset = PackedDataset | ResizedDataset


@final
class SizedSplits(Mapping[str, ImageDataset]):
    """The splits of a data set at one size; each is packed or resized on first access."""

    def __init__(
        self, base: ImageDataset, sized: ImageDataset, size: int, fit: SquareFit, bad_images: BadImages
    ) -> None:
        """Wrap `base.splits`.

        Args:
            base: The data set at its own size.
            sized: `base` at the new size.
            size: Side in pixels.
            fit: See `at_size`.
            bad_images: See `at_size`.
        """
        self._base, self._size, self._fit, self._bad_images = base.splits, size, fit, bad_images
        self._done = {name: sized for name, part in base.splits.items() if part is base}

    def __getitem__(self, name: str) -> ImageDataset:
        if name not in self._done:
            sized = _at_size(self._base[name], self._size, self._fit, self._bad_images)
            sized.splits = self
            self._done[name] = sized
        return self._done[name]

    def __contains__(self, name: object) -> bool:  # the inherited method would decode the split
        return name in self._base

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def fit_for(data: ImageDataset, fit: SquareFit) -> SquareFit:
    """Return how the pictures of a data set become squares: `fit`, unless all are squares or are to be squashed."""
    return "squash" if data.squash or data.side is not None else fit


def _at_size(data: ImageDataset, size: int, fit: SquareFit, bad_images: BadImages) -> SizedDataset:
    planes = 4 if "masks" in kept_annotations(data.annotations, fit) else 3
    if not fits_a_pack(len(data) * planes * size * size):
        return ResizedDataset(data, size, fit)
    return PackedDataset(data, size, fit, checked(open_or_build(data, size, fit), data, bad_images))


def fits_a_pack(values: int) -> bool:
    """Return whether so many bytes may be packed: PRETEXT_PACK_GB, or `PACK_GB` gigabytes."""
    return values <= size_limit_gb("PRETEXT_PACK_GB", PACK_GB) * 1e9


def checked(pack: Pack, data: ImageDataset, bad_images: BadImages) -> Pack:
    """Return the pack of a data set, and print on stderr which pictures were left out.

    Raises:
        UserError: If some were and `bad_images` is `stop`, or if all were.
    """
    bad = pack.skipped
    if bad and (bad_images == "stop" or len(bad) == len(data)):
        which = f"{len(bad)} of {len(data)}" if len(bad) < len(data) else f"all {len(data)}"
        hint = "; --bad-images skip leaves them out" if len(bad) < len(data) else ""
        raise UserError(f"{data.spec}: {which} pictures cannot be decoded, the first of them {bad[0]}{hint}")
    if bad and rank() == 0:
        print(
            f"{data.spec}: left out {len(bad)} of {len(data)} pictures that cannot be decoded: {first_of(bad)}",
            file=sys.stderr,
        )
    return pack


def left_out_notes(base: ImageDataset, skipped: tuple[str, ...]) -> tuple[Fault, ...]:
    """Return the note on the pictures that a pack of `base` lacks; nothing if it lacks none."""
    about = f"{len(skipped)} of {len(base)} pictures could not be decoded and were left out: {first_of(skipped)}."
    return (Fault(about),) if skipped else ()


def fingerprint_without(base: ImageDataset, skipped: tuple[str, ...]) -> str:
    """Return the fingerprint of `base`; if pictures were left out, a hash of it and of their number.

    The fingerprint of `base` covers the broken files too. Names and reasons would add the folder of the data and the
    words of the decoder.
    """
    return digest(base.fingerprint, str(len(skipped))) if skipped else base.fingerprint


def first_of(bad: tuple[str, ...], at_most: int = 5) -> str:
    """Return the first lines of many, and how many more there are."""
    rest = f"; and {len(bad) - at_most} more" if len(bad) > at_most else ""
    return "; ".join(bad[:at_most]) + rest
