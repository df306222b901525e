"""The classes of all pictures as one tensor, for training and judging classifiers; the names of one picture's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from pretext.datasets.base import BadImage, ImageDataset, Target
from pretext.datasets.packed import ResizedDataset
from pretext.system.progress import counted

SEVERAL = ", "
"""Between the class names of a picture that shows several classes."""


def is_multi_label(data: ImageDataset) -> bool:
    """Return whether pictures have any number of classes each, rather than exactly one.

    Raises:
        UserError: If pictures have no classes.
    """
    if "label" in data.annotations:
        return False
    if "labels" not in data.annotations:
        data.require("label")
    return True


def class_targets(data: ImageDataset) -> Int[Tensor, "N ..."]:
    """Return the classes of every picture of a split.

    Returns:
        N class indices if every picture has one class. Otherwise N×K: 1 if the picture shows the class, 0 if it
        does not, -1 if every object of the class is difficult, which an evaluation ignores (VOC's rule). Where the
        classes are known only after decoding, the row of a picture that cannot be decoded is all -1.

    Raises:
        UserError: If pictures have no classes.
    """
    if not is_multi_label(data):
        if data.label is not None:
            return data.label.clone()
        return torch.tensor([_label(data, index) for index in _indices(data)])
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
    for index in _indices(data):
        try:
            many[index] = multi_hot(data[index][1], len(data.classes))
        except BadImage:
            many[index] = -1
    return many


def multi_hot(target: dict[str, Any], classes: int) -> Int[Tensor, "K"]:
    """Return one picture's row of `class_targets`, from its target and the number of classes."""
    row = torch.zeros(classes, dtype=torch.int64)
    labels = target["labels"]
    difficult = target.get("difficult", torch.zeros(len(labels), dtype=torch.bool))
    row[labels[difficult]] = -1
    row[labels[~difficult]] = 1
    return row


def _indices(data: ImageDataset) -> Iterator[int]:
    return counted(range(len(data)), f"read the classes of {data.spec}", len(data), unit="img")


def _label(data: ImageDataset, index: int) -> int:
    try:
        return int(data[index][1]["label"])
    except BadImage:
        return -1


def class_names_of(target: Target, classes: tuple[str, ...]) -> str:
    """Return the name of a picture's class, or the names of its objects' classes; empty if it has none."""
    if "label" in target:
        return classes[int(target["label"])] if int(target["label"]) >= 0 else ""
    return SEVERAL.join(classes[k] for k in sorted(set(target["labels"].tolist()))) if "labels" in target else ""
