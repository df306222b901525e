"""Several views of each image, for the tasks that compare views.

Source: Caron et al. 2020, arXiv 2006.09882, section 3.2 (multi-crop: two large views, and small ones that add
    comparisons at low cost).
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

from pretext.datasets.pictures import Pictures
from pretext.encoders.base import Encoder, deepest_shape
from pretext.system.ranges import check_range
from pretext.transforms.augmentation import Augmentation, augment


@dataclass(frozen=True)
class MultiCrop(Augmentation):
    """Settings of multi-crop; the defaults are for about 32 px, where a crop of 5 % of the area spans only 7 px."""

    crop_min: float = 0.3
    """Smallest large crop and largest small crop, as a fraction of the image area."""
    local_min: float = 0.1
    """Smallest small crop, as a fraction of the image area."""
    local_crops: int = 4
    """Number of small crops per image; 0 uses the two large crops only."""
    local_size: float = 0.5
    """Side of the small crops, as a fraction of the large crops' side; published 96/224."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.local_min <= self.crop_min:
            raise ValueError(f"local_min is {self.local_min}; allowed is above 0 and up to crop_min={self.crop_min}")
        check_range(self, "local_crops", least=0, most=64)
        check_range(self, "local_size", above=0, most=1)

    def local(self) -> Augmentation:
        """Return the settings of the small crops: those of the large crops, with another range of areas."""
        return base_settings(self, crop_min=self.local_min, crop_max=self.crop_min)


def two_views(
    images: Pictures | Shaped[Tensor, "B 3 H W"],
    first: Augmentation,
    second: Augmentation,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 3 S S"]]:
    """Return two random views of each image, in [0, 1].

    Args:
        images: Pictures of any sizes, or a tensor, uint8 in [0, 255] or float in [0, 1]; not modified.
        first: Settings of the first view.
        second: Settings of the second view.
        generator: Random generator on the images' device.
    """
    return augment(images, first, generator), augment(images, second, generator)


def base_settings(settings: Augmentation, **changes: Any) -> Augmentation:
    """Return the `Augmentation` fields of a subclass such as a task's configuration.

    Args:
        settings: An instance of `Augmentation` or of a subclass.
        changes: Fields to replace.
    """
    own = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Augmentation)}
    return Augmentation(**(own | changes))


def local_side(encoder: Encoder, share: float) -> int:
    """Return the side of small crops in pixels; a multiple of the patch side for transformers.

    Args:
        encoder: Reads the crops; checked by running it on a blank one.
        share: Requested side, as a fraction of the encoder's input size; the nearest possible side is returned.

    Raises:
        ValueError: If the encoder cannot read images of that side.
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
    images: Pictures | Shaped[Tensor, "B 3 S S"],
    global_: tuple[Augmentation, Augmentation],
    local: Augmentation,
    generator: torch.Generator,
    *,
    count: int,
    side: int,
) -> list[Float[Tensor, "V B 3 _ _"]]:
    """Return random crops of each image, in [0, 1].

    Args:
        images: Pictures of any sizes, or a tensor, uint8 in [0, 255] or float in [0, 1]; not modified.
        global_: Settings of the first and the second large crop.
        local: Settings of the small crops.
        generator: Random generator on the images' device.
        count: Number of small crops per image.
        side: Side of the small crops in pixels.

    Returns:
        The two large crops (2×B×3×S×S), then the small crops (count×B×3×side×side) if count is not 0.
    """
    crops = [torch.stack([augment(images, settings, generator) for settings in global_])]
    if count:
        crops.append(torch.stack([augment(images, local, generator, size=side) for _ in range(count)]))
    return crops


def embed_crops(encoder: Encoder, crops: list[Float[Tensor, "V B 3 _ _"]]) -> Float[Tensor, "N D"]:
    """Return the embeddings of all crops, crop by crop, with one encoder pass per crop size."""
    return torch.cat([encoder.embed(views.flatten(0, 1)) for views in crops])


def show_crops(
    images: Shaped[Tensor, "B 3 S S"], crops: list[Float[Tensor, "V B 3 _ _"]]
) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
    """Return the columns of a sample sheet: the images, their large crops, and the first small crop, enlarged."""
    columns = {"picture": images.float() / 255, "first large crop": crops[0][0], "second large crop": crops[0][1]}
    for small in crops[1:]:
        columns["a small crop"] = F.interpolate(small[0], size=images.shape[2:], mode="nearest")
    return columns
