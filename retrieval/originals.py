"""The picture behind a sized one, at its own size and proportions, and the path of its file.

An encoder sees squares; people recognise a photograph by its own proportions.
"""

from __future__ import annotations

from jaxtyping import UInt8
from torch import Tensor

from pretext.datasets.base import ImageDataset
from pretext.datasets.files import FileDataset
from pretext.datasets.view import source_of


def original(data: ImageDataset, index: int) -> UInt8[Tensor, "3 H W"]:
    """Return a picture at its own size and proportions.

    Args:
        data: A split at one size.
        index: The picture's index in it.
    """
    source, place = source_of(data, index)
    return source[place][0]


def file_of(data: ImageDataset, index: int) -> str | None:
    """Return the path of a picture's file, or None where it has no file of its own; see `original`."""
    source, place = source_of(data, index)
    return str(source.images[place]) if isinstance(source, FileDataset) and source.store is None else None
