"""Several views of each picture, for the tasks that compare them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pretext.augmentation import Augmentation, augment


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
