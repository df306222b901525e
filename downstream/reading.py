"""Which pictures a probe reads, in which order, and reading them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from downstream.label_sampling import fixed_order
from pretext.datasets.base import BadImage, ImageDataset, Target
from pretext.datasets.packed import PackedDataset
from pretext.system.errors import UserError


def draw(data: ImageDataset, count: int, *, seed: int) -> NDArray[np.int64]:
    """Return `count` indices of a data set in random order; all if `count` is 0 or too large.

    With the same seed, a smaller draw is a subset of a larger one.
    """
    order = np.random.default_rng(seed).permutation(len(data))
    return order[:count] if count else order


def tested(data: ImageDataset, count: int) -> NDArray[np.int64]:
    """Return the indices of `count` test images in ascending order; all if `count` is 0 or too large.

    The images are drawn because a split may be sorted by class. The draw is fixed, so that every seed is tested on the
    same images.
    """
    return np.sort(fixed_order(len(data), sample=0)[: count or None])


def batches(indices: NDArray[np.int64], batch_size: int, steps: int, *, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield `steps` batches of indices. Each epoch is shuffled anew; a batch may span two epochs."""
    rng = np.random.default_rng(seed)
    waiting = np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(indices)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def read(
    data: ImageDataset, indices: NDArray[np.int64], known: dict[int, Target] | None = None
) -> tuple[UInt8[Tensor, "B 3 S S"], list[Target]]:
    """Return images of one size and targets; see `read_each`."""
    images, targets = read_each(data, indices, known)
    return torch.stack(images), targets


def read_each(
    data: ImageDataset, indices: NDArray[np.int64], known: dict[int, Target] | None = None
) -> tuple[list[UInt8[Tensor, "3 _ _"]], list[Target]]:
    """Return images and targets; images that cannot be decoded are left out.

    Args:
        data: The data set.
        indices: Which of its images to read.
        known: Targets that were read before, to which new ones are added: the images of a packed data set are in
            memory, and its targets take longer. Changes to the returned targets do not reach it.

    Raises:
        UserError: If none of the images can be decoded.
    """
    images, targets = [], []
    packed = data if known is not None and isinstance(data, PackedDataset) else None
    for index in indices.tolist():
        try:
            if packed is None or known is None:
                image, target = data[index]
            elif index in known:
                image, target = packed.images[index], known[index].copy()
            else:
                image, target = data[index]
                known[index] = target.copy()
        except BadImage:  # only in data too large to be packed: packing skips bad images beforehand
            continue
        images.append(image)
        targets.append(target)
    if not images:
        raise UserError(f"{data.spec}: {len(indices)} images in a row cannot be decoded; check the files")
    return images, targets


def flip_some(images: UInt8[Tensor, "B 3 S S"], targets: list[Target]) -> UInt8[Tensor, "B 3 S S"]:
    """Mirror each image with probability 1/2, and its boxes, proposals and mask in place."""
    flipped = torch.rand(len(images)) < 0.5
    for target, flip in zip(targets, flipped, strict=True):
        for name in ("boxes", "proposals", "masks"):
            if flip and name in target:
                target[name] = TF.horizontal_flip(target[name])
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)
