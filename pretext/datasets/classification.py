"""The classes of pictures as one tensor, for whoever trains or judges a classifier."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.packed import ResizedDataset


def is_multi_label(data: ImageDataset) -> bool:
    """Whether a picture has any number of classes, rather than one.

    Raises:
        UserError: If pictures have no classes at all.
    """
    if "label" in data.annotations:
        return False
    if "labels" not in data.annotations:
        data.require("label")
    return True


def class_targets(data: ImageDataset) -> Int[Tensor, "N ..."]:
    """Return the classes of every picture of a split.

    Returns:
        N class indices where every picture has one. Else N×K: 1 where the picture shows the class, 0 where it
        does not, -1 where all it shows of it is difficult, which counts neither way (VOC's rule). Where only
        decoding tells the classes, a picture that cannot be decoded has -1 throughout.

    Raises:
        UserError: If pictures have no classes.
    """
    if not is_multi_label(data):
        if data.label is not None:
            return data.label.clone()
        return torch.tensor([_label(data, index) for index in range(len(data))])
    objects = (data.base if isinstance(data, ResizedDataset) else data).objects
    many = torch.zeros(len(data), len(data.classes), dtype=torch.int64)
    if objects is not None:
        pictures = torch.arange(len(data)).repeat_interleave(objects.offsets.diff())
        difficult = objects.difficult
        if difficult is not None:
            many[pictures[difficult], objects.labels[difficult]] = -1
            pictures, shown = pictures[~difficult], objects.labels[~difficult]
        else:
            shown = objects.labels
        many[pictures, shown] = 1
        return many
    for index in range(len(data)):
        try:
            many[index] = multi_hot(data[index][1], len(data.classes))
        except BadImage:
            many[index] = -1
    return many


def multi_hot(target: dict[str, Any], classes: int) -> Int[Tensor, "K"]:
    """Return one picture's row of `class_targets`."""
    row = torch.zeros(classes, dtype=torch.int64)
    labels = target["labels"]
    difficult = target.get("difficult", torch.zeros(len(labels), dtype=torch.bool))
    row[labels[difficult]] = -1
    row[labels[~difficult]] = 1
    return row


def _label(data: ImageDataset, index: int) -> int:
    try:
        return int(data[index][1]["label"])
    except BadImage:
        return -1
