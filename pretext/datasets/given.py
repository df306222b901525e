"""Data that Python code hands over, as an `ImageDataset`: `as_dataset`.

`train` and every probe call it, so that they take an `ImageDataset`, a torch data set, arrays or paths alike.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from pretext.datasets.base import ImageDataset
from pretext.datasets.completing import completed
from pretext.datasets.files import FileDataset
from pretext.datasets.items import ItemDataset
from pretext.datasets.shards import SPLIT_OF
from pretext.datasets.stored_splits import Label, class_numbers, folder_order
from pretext.datasets.torchvision_sets import ArrayDataset
from pretext.system.errors import UserError

Given: TypeAlias = (
    ImageDataset
    | Dataset[Any]
    | NDArray[np.uint8]
    | Tensor
    | Sequence[str | Path]
    | tuple[Any, Sequence[Any]]
    | Mapping[str, Any]
)
"""What `as_dataset` takes."""


def as_dataset(data: Given) -> ImageDataset:
    """Return data as an `ImageDataset` with train, val and test; an `ImageDataset` that has them is returned as it is.

    Splits that are not given are drawn as `open_dataset` draws them.

    Args:
        data: One of these, all of which is train, or a dict of them by split (`{"train": …, "test": …}`).

            - An `ImageDataset` without splits.
            - A list of paths of picture files; they are sorted by path.
            - An array of uint8, N×H×W×3, N×3×H×W or N×H×W.
            - Any data set with `__getitem__` and `__len__`, such as torch's and torchvision's; see `items`. Every item
              is read once to find its class and the data set's fingerprint.
            - A pair of paths or arrays and their classes: N numbers or names.

    Raises:
        UserError: If something else is given, or there are too few pictures to draw splits from.
    """
    if isinstance(data, ImageDataset) and "train" in data.splits:
        return data
    parts = {"train": data}
    if isinstance(data, Mapping):
        parts = {SPLIT_OF.get(name, name): part for name, part in data.items()}
    if "train" not in parts:
        raise UserError(f"the data given has the splits {', '.join(map(str, parts)) or '(none)'}; train is missing")
    spec = f"given:{_called(parts['train'])}"
    made: dict[str, ImageDataset] = {}
    labels: dict[str, tuple[Sequence[Label], Sequence[str]]] = {}
    names: tuple[str, ...] = ()
    for split, part in parts.items():
        made[split], stated = _opened(f"{spec} ({split})" if len(parts) > 1 else spec, part)
        if not isinstance(part, ImageDataset):
            labels[split] = stated, [f"item {index}" for index in range(len(stated))]
            names = names or _class_names(part)
    notes: list[str] = []
    if "train" in labels:
        # a picture that cannot be decoded has no class, and never reaches a task
        numbers, classes = class_numbers(spec, labels, names, notes)
        for split, found in numbers.items():
            _annotate(made[split], torch.tensor(found, dtype=torch.int64), classes)
        made = {split: part for split, part in made.items() if not classes or split in numbers or split not in labels}
    made["train"].notes += tuple(notes)
    own = made["train"].spec
    return completed(own if isinstance(parts["train"], ImageDataset) and own else spec, made)


def _opened(spec: str, given: Any) -> tuple[ImageDataset, list[Label]]:
    """Return one split without classes, and the class of each of its pictures."""
    if isinstance(given, ImageDataset):
        return given, []
    if isinstance(given, str | Path):
        raise UserError(f"{given!r} is text; open_dataset opens a spec, and a list of paths is a data set too")
    labels: Sequence[Any] | None = None
    if _is_pair(given):
        given, labels = given
    if isinstance(given, np.ndarray | Tensor):
        part: ImageDataset = _array(spec, given)
        stated: list[Label] = [None] * len(part) if labels is None else [_plain(label) for label in labels]
    elif isinstance(given, list | tuple) and given and all(isinstance(path, str | Path) for path in given):
        part, stated = _files(spec, given, labels)
    elif isinstance(given, IterableDataset) or not (hasattr(given, "__getitem__") and hasattr(given, "__len__")):
        raise UserError(
            f"{spec}: {type(given).__name__} cannot be read by index; give a data set with __getitem__ and __len__, "
            "an array, or a list of paths"
        )
    else:
        part = ItemDataset(spec, given)
        stated = [*part.stated]
    if len(stated) != len(part):
        raise UserError(f"{spec}: {len(part):,} pictures, but {len(stated):,} classes")
    if not len(part):
        raise UserError(f"{spec}: no pictures")
    return part, stated


def _is_pair(given: Any) -> bool:
    """Return whether an object is a pair of pictures and their classes."""
    if not isinstance(given, tuple) or len(given) != 2 or isinstance(given[0], str | Path):
        return False
    return isinstance(given[0], np.ndarray | Tensor | list) and isinstance(given[1], Sequence | np.ndarray | Tensor)


def _plain(label: Any) -> Label:
    """Return a class as Python has it."""
    value = label.item() if isinstance(label, np.generic | Tensor) else label
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{value!r} is no class; expected a whole number or a name")
    return value


def _array(spec: str, given: NDArray[Any] | Tensor) -> ArrayDataset:
    images = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
    colours = images.ndim == 4 and (images.shape[-1] == 3 or images.shape[1] == 3)
    if images.dtype != np.uint8 or not (images.ndim == 3 or colours):
        shape = "×".join(map(str, images.shape))
        raise UserError(f"{spec}: {shape} of {images.dtype}; expected uint8, N×H×W×3, N×3×H×W or N×H×W")
    return ArrayDataset(images, None, ())


def _files(spec: str, given: Sequence[str | Path], labels: Sequence[Any] | None) -> tuple[FileDataset, list[Label]]:
    """Return the pictures in files, sorted as a walk through their folders sorts them."""
    paths = [os.path.abspath(path) for path in given]  # noqa: PTH100 - a million of them
    if labels is not None and len(labels) != len(paths):
        raise UserError(f"{spec}: {len(paths):,} paths, but {len(labels):,} classes")
    absent = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113
    if absent:
        raise UserError(f"{spec}: no file {absent[0]} ({len(absent):,} of {len(paths):,} are missing)")
    root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    order = sorted(range(len(paths)), key=lambda row: folder_order(os.path.relpath(paths[row], root)))
    stated = [None] * len(paths) if labels is None else [_plain(labels[row]) for row in order]
    return FileDataset(root=Path(root), images=[paths[row] for row in order]), [*stated]


def _annotate(part: ImageDataset, label: Tensor, classes: tuple[str, ...]) -> None:
    part.label, part.classes, part.annotations = label, classes, frozenset({"label"})


def _class_names(given: Any) -> tuple[str, ...]:
    """Return the class names that a data set of torchvision's or Hugging Face's states; () if it states none."""
    found = getattr(given, "classes", None)
    if found is None and isinstance(features := getattr(given, "features", None), Mapping):
        found = getattr(features.get("label"), "names", None)
    if not isinstance(found, Sequence) or isinstance(found, str):
        return ()
    return tuple(name if isinstance(name, str) else ", ".join(map(str, name)) for name in found)


def _called(given: Any) -> str:
    """Return what messages and records call the data."""
    if _is_pair(given):
        return _called(given[0])
    if isinstance(given, np.ndarray | Tensor):
        return f"{'array' if isinstance(given, np.ndarray) else 'tensor'}"
    if isinstance(given, list | tuple):
        return "list"
    return type(given).__name__
