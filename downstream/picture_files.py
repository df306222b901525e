"""The names that pictures have in files about pictures."""

from __future__ import annotations

import os
from pathlib import Path

from pretext.datasets.files import FileDataset


def name_of(data: FileDataset, row: int) -> str:
    """Return a picture's path below the data set's folder, such as `JPEGImages/000005.jpg`."""
    return Path(os.path.relpath(data.images[row], data.root)).as_posix()
