"""Several views of each picture, for the tasks that compare them.

Source: Caron et al. 2020, arXiv 2006.09882, section 3.2 (multi-crop: two large views and some small ones, which
    add comparisons at a fraction of the cost).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from pretext.encoders.base import Encoder, deepest_shape
from pretext.transforms.augmentation import Augmentation, augment


@dataclass(frozen=True)
class MultiCrop(Augmentation):
    """What crops may differ in; the defaults are for some 32 px, where a crop of 5 % would show 7 px."""

    crop_min: float = 0.3
    """Smallest share of the picture's area that a large crop shows, and the largest that a small one shows."""
    local_min: float = 0.1
    """Smallest share that a small crop shows."""
    local_crops: int = 4
    """Small crops of each picture; 0 leaves the two large ones."""
    local_size: float = 0.5
    """Side of the small crops, as a share of the large ones'; as published, 96 of 224."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.local_min <= self.crop_min:
            raise ValueError(f"local_min is {self.local_min}; allowed is above 0 and up to crop_min={self.crop_min}")
        if not 0 <= self.local_crops <= 64:
            raise ValueError(f"local_crops is {self.local_crops}; allowed is from 0 to 64")
        if not 0 < self.local_size <= 1:
            raise ValueError(f"local_size is {self.local_size}; allowed is above 0 and up to 1")

    def local(self) -> Augmentation:
        """Return what the small crops may differ in: as the large ones, but for their share."""
        return plain(self, crop_min=self.local_min, crop_max=self.crop_min)


def two_views(
    images: Shaped[Tensor, "B 3 H W"], first: Augmentation, second: Augmentation, generator: torch.Generator
) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 3 S S"]]:
    """Return two random views of each picture, in [0, 1], each with settings of its own.

    Args:
        images: uint8 in [0, 255], or float in [0, 1]; left as they are.
        first: What the first view may change.
        second: What the second view may change.
        generator: Is on the images' device.
    """
    return augment(images, first, generator), augment(images, second, generator)


def plain(settings: Augmentation, **changes: Any) -> Augmentation:
    """Return the augmentation among a task's settings, with some of it changed."""
    own = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Augmentation)}
    return Augmentation(**(own | changes))


def local_side(encoder: Encoder, share: float) -> int:
    """Return the side in pixels of small crops, whole patches for a transformer.

    Args:
        encoder: What reads them.
        share: Of its input size, as near as can be.

    Raises:
        ValueError: If the encoder cannot read pictures of that size.
    """
    patch = encoder.stages[0].stride if encoder.stages[0].stride == encoder.stages[-1].stride else 1
    side = min(max(1, round(share * encoder.input_size / patch)) * patch, encoder.input_size)
    try:
        deepest_shape(encoder, side)
    except (RuntimeError, AssertionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{encoder.spec} cannot read small crops of {side} px ({first}); give a larger local_size, or local_crops=0"
        ) from error
    return side


def multi_crop(
    images: Shaped[Tensor, "B 3 S S"],
    global_: tuple[Augmentation, Augmentation],
    local: Augmentation,
    generator: torch.Generator,
    *,
    count: int,
    side: int,
) -> list[Float[Tensor, "V B 3 _ _"]]:
    """Return random crops of each picture, in [0, 1]: two large ones, and then, where count is not 0, the small ones.

    Args:
        images: uint8 in [0, 255], or float in [0, 1]; left as they are.
        global_: What the first and the second large crop may differ in; they are as large as the pictures.
        local: What the small crops may differ in.
        generator: Is on the images' device.
        count: Small crops.
        side: Of the small crops in pixels.
    """
    crops = [torch.stack([augment(images, settings, generator) for settings in global_])]
    if count:
        crops.append(torch.stack([augment(images, local, generator, size=side) for _ in range(count)]))
    return crops


def embed_crops(encoder: Encoder, crops: list[Float[Tensor, "V B 3 _ _"]]) -> Float[Tensor, "N D"]:
    """Return the vectors of all crops, crop by crop; each size goes through the encoder at once."""
    return torch.cat([encoder.embed(views.flatten(0, 1)) for views in crops])


def show_crops(
    images: Shaped[Tensor, "B 3 S S"], crops: list[Float[Tensor, "V B 3 _ _"]]
) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
    """Return columns to look at: the pictures, their large crops, and the first small one, enlarged."""
    columns = {"picture": images.float() / 255, "first large crop": crops[0][0], "second large crop": crops[0][1]}
    for small in crops[1:]:
        columns["a small crop"] = F.interpolate(small[0], size=images.shape[2:], mode="nearest")
    return columns
