"""Several folders of pictures as one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from pretext.datasets.base import Fault, ImageDataset
from pretext.datasets.files import FileDataset, some


def joined_folders(roots: Sequence[Path], opened: Sequence[Mapping[str, ImageDataset]]) -> dict[str, ImageDataset]:
    """Return the splits of several folders, with the pictures of each split one folder after the other.

    Classes of one name are one class. If a folder has no classes, the data set has none, and a note says so.

    Args:
        roots: The folders; the first one is the root of the data set.
        opened: The splits of each.
    """
    notes = [note for splits in opened for note in splits["train"].notes]
    unlabelled = [str(root) for root, splits in zip(roots, opened, strict=True) if not splits["train"].classes]
    orders = {splits["train"].classes for splits in opened}
    named = orders.pop() if len(orders) == 1 else tuple(sorted({name for order in orders for name in order}))
    classes = () if unlabelled else named
    if unlabelled and named:
        notes.append(Fault(f"The pictures in {some(unlabelled)} have no classes, so none of the others are used."))
    place = {name: number for number, name in enumerate(classes)}
    found: dict[str, ImageDataset] = {}
    for split in dict.fromkeys(name for splits in opened for name in splits):
        parts = [splits[split] for splits in opened if split in splits]
        images = [path for part in parts if isinstance(part, FileDataset) for path in part.images]
        label = None
        if classes:
            numbers = [torch.tensor([place[name] for name in part.classes])[part.label] for part in parts]
            label = torch.cat(numbers)
        found[split] = FileDataset(root=roots[0], images=images, classes=classes, label=label)
    lacking = [splits["train"].lacking for splits in opened if splits["train"].lacking]
    if lacking:
        found["train"].lacking = lacking[0]
    found["train"].notes = tuple(notes)
    return found
