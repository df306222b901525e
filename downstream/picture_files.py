"""The files that a split's pictures lie in, and the names that go for them in files about pictures."""

from __future__ import annotations

import os
from pathlib import Path

from jaxtyping import Int
from numpy import ndarray

from pretext.datasets.base import ImageDataset
from pretext.datasets.files import FileDataset
from pretext.datasets.packed import PackedDataset, ResizedDataset
from pretext.datasets.splitting import Subset


def origin(data: ImageDataset, rows: Int[ndarray, "N"]) -> tuple[ImageDataset, Int[ndarray, "N"]]:
    """Return the data set behind a split, and where its pictures are there.

    It goes no further than a pack that some pictures were left out of: what is behind that counts otherwise.

    Args:
        data: The split, brought to size or not.
        rows: Pictures of it.
    """
    while isinstance(data, PackedDataset | ResizedDataset | Subset):
        if isinstance(data, PackedDataset) and data.skipped:
            break
        rows, data = (data.indices[rows] if isinstance(data, Subset) else rows), data.base
    return data, rows


def name_of(data: FileDataset, row: int) -> str:
    """Return a picture's path below the data set's folder, such as `JPEGImages/000005.jpg`."""
    return Path(os.path.relpath(data.images[row], data.root)).as_posix()
