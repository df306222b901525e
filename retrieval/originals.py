"""The way back from a picture at an encoder's size to the one that it was made of, to show and to name it.

An encoder sees squares; people recognise a photograph by its own proportions.
"""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.files import FileDataset
from pretext.datasets.packed import PackedDataset, ResizedDataset
from pretext.datasets.packing import item_at
from pretext.datasets.splitting import Joined, Subset


def original(data: ImageDataset, index: int) -> UInt8[Tensor, "3 H W"]:
    """Return a picture at its own size and proportions.

    Args:
        data: A split at one size.
        index: The picture's number in it.
    """
    base, number = _origin(data, index)
    return base[number][0]


def file_of(data: ImageDataset, index: int) -> str | None:
    """Return the path of a picture's file; None where it lies in none of its own. Arguments as `original`."""
    base, number = _unwrapped(*_origin(data, index))
    return str(base.images[number]) if isinstance(base, FileDataset) else None


def _unwrapped(data: ImageDataset, index: int) -> tuple[ImageDataset, int]:
    if isinstance(data, Subset):
        return _unwrapped(data.base, int(data.indices[index]))
    if isinstance(data, Joined):
        return _unwrapped(*data.place(index))
    return data, index


def _origin(data: ImageDataset, index: int) -> tuple[ImageDataset, int]:
    """Return the data set that was brought to size, and the picture's number there.

    A pack lacks the pictures that could not be decoded, so that a number in it may be up to as many higher in
    its base: the first there with the very same pixels is the one.
    """
    if isinstance(data, ResizedDataset):
        return data.base, index
    if not isinstance(data, PackedDataset):
        return data, index
    if not data.skipped:
        return data.base, index
    for number in range(index, min(index + len(data.skipped) + 1, len(data.base))):
        try:
            if torch.equal(item_at(data.base, number, data.size)[0], data.images[index]):
                return data.base, number
        except BadImage:
            continue
    return data, index
