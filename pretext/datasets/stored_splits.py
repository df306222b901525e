"""Splits of pictures that lie in larger files: their names, their order and their classes.

Names and order are those that `folder` gives to the same pictures as files, so that a data set is the same data set in
either form.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pretext.datasets.base import Fault, ImageDataset
from pretext.datasets.files import FileDataset, text_lines
from pretext.datasets.layouts import SPLIT_NAMES
from pretext.datasets.stores import Store
from pretext.system.errors import UserError, did_you_mean

Label = str | int | None
CLASS_FILE = "classes.txt"
SPARSE_ABOVE, SPARSE = 1000, 10
"""Numbers without names are codes, not class numbers, if the largest is above the first and at least the second times
as large as there are distinct ones."""


@dataclass
class Rows:
    """The pictures of one split. All lists but the first two have an entry for each picture."""

    files: list[str]
    """The larger files."""
    called: list[str]
    """What messages call each of them."""
    names: list[str] = field(default_factory=list)
    """The path of each picture inside its file."""
    file_of: list[int] = field(default_factory=list)
    """The number in `files` of each picture's file."""
    offsets: list[int] = field(default_factory=list)
    """The place of each picture's first byte."""
    sizes: list[int] = field(default_factory=list)
    """Number of bytes of each picture."""
    labels: list[Label] = field(default_factory=list)
    """The class of each picture, a name or a number; None or a number below zero if it has none."""


def named_classes(spec: str, root: Path, file: str | None) -> tuple[str, ...]:
    """Return the class names in a file, one a line; () if the user gave none and there is no `classes.txt`.

    Args:
        spec: The start of error messages.
        root: The folder of the data set, which the path is relative to.
        file: The user's path.

    Raises:
        UserError: If the file cannot be read or names a class twice.
    """
    path = root / (file or CLASS_FILE)
    if file is None and not path.is_file():
        return ()
    names = tuple(line for line in text_lines(path, "a list of class names, one a line") if line)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{spec}: {path} names the class {twice!r} twice")
    return names


def stored_splits(
    spec: str, splits: Mapping[str, Rows], *, classes: tuple[str, ...], notes: list[str], lacking: str = ""
) -> dict[str, ImageDataset]:
    """Return the splits of a data set in larger files.

    Args:
        spec: The start of error messages.
        splits: The pictures of each split.
        classes: Class names in the order of their numbers; () takes them from the pictures of train.
        notes: Receives notes on splits that are not used; train gets all of them.
        lacking: Why there are no classes if that may surprise.

    Raises:
        UserError: If only some pictures of a split have a class, or a class is unknown.
    """
    for name, rows in splits.items():
        if not rows.names:
            raise UserError(f"{spec}: no pictures in {name}")
        rows.names = _distinct(spec, name, rows, several=len(splits) > 1)
    numbers, classes = class_numbers(
        spec, {name: (rows.labels, rows.names) for name, rows in splits.items()}, classes, notes
    )
    found: dict[str, ImageDataset] = {}
    for name, rows in splits.items():
        if classes and name not in numbers:
            continue
        order = np.array(sorted(range(len(rows.names)), key=lambda row: folder_order(rows.names[row])))
        names = [rows.names[row] for row in order.tolist()]
        store = Store(
            rows.files,
            names,
            file_of=np.array(rows.file_of, np.int64)[order],
            offsets=np.array(rows.offsets, np.int64)[order],
            sizes=np.array(rows.sizes, np.int64)[order],
            called=rows.called,
        )
        label = torch.tensor(numbers[name], dtype=torch.int64)[torch.from_numpy(order)] if classes else None
        found[name] = FileDataset(root=Path(), images=names, classes=classes, label=label, store=store)
    if lacking and not classes:
        found["train"].lacking = {"label": lacking}
        notes.append(Fault(f"The pictures have no classes: {lacking}."))
    found["train"].notes = tuple(notes)
    return found


def class_numbers(
    spec: str, splits: Mapping[str, tuple[Sequence[Label], Sequence[str]]], classes: tuple[str, ...], notes: list[str]
) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Return the class number of each picture of each split, and the class names; nothing without two classes.

    A split without classes is left out if train has some. Labels that are numbers are class numbers, unless no names
    are given and they are far from dense: then the distinct numbers of train are the names, in
    ascending order.

    Args:
        spec: The start of error messages.
        splits: The label and the name of each picture of each split.
        classes: See `stored_splits`.
        notes: See `stored_splits`.

    Raises:
        UserError: See `stored_splits`.
    """
    labels = {
        split: [None if isinstance(label, int) and label < 0 else label for label in given]
        for split, (given, _) in splits.items()
    }
    known = {label for label in labels["train"] if label is not None}
    if not known or (len(known) < 2 and not classes):
        return {}, ()
    in_use = sorted(label for label in known if isinstance(label, int))
    all_numbers = len(in_use) == len(known)
    are_codes = all_numbers and not classes and in_use[-1] > SPARSE_ABOVE and in_use[-1] >= SPARSE * len(in_use)
    are_numbers = all_numbers and not are_codes
    if not classes and all_numbers:
        classes = tuple(map(str, in_use if are_codes else range(1 + in_use[-1])))
    elif not classes:
        classes = tuple(sorted(str(label) for label in known))
    place: dict[Label, int] = {name: number for number, name in enumerate(classes)}
    numbers: dict[str, list[int]] = {}
    for split, given in labels.items():
        without = [row for row, label in enumerate(given) if label is None]
        if len(without) == len(given):
            notes.append(Fault(f"The pictures of {split} have no classes, unlike those of train: they are not used."))
            continue
        names = splits[split][1]
        if without:
            raise UserError(
                f"{spec}: {len(without):,} of {len(given):,} pictures in {split} have no class, {names[without[0]]} "
                "among them; give each one, or read none of them with label=none"
            )
        numbers[split] = []
        for row, label in enumerate(given):
            number = label if are_numbers and isinstance(label, int) else place.get(str(label))
            if number is None or number >= len(classes):
                hint = f"there are {len(classes)} classes" if all_numbers else did_you_mean(str(label), classes)
                raise UserError(f"{spec}: {split}: {names[row]} has the class {label!r}, which is not known; {hint}")
            numbers[split].append(number)
    return numbers, classes


def folder_order(name: str) -> list[tuple[bool, str]]:
    """Return the key that sorts paths as a walk through the folders does: files first, then each sub-folder."""
    *folders, base = name.split("/")
    return [*((True, folder) for folder in folders), (False, base)]


def as_label(text: str) -> Label:
    """Return the class that a text names, or its number where it is written as one; None if it is empty.

    `007` is a name.
    """
    stripped = text.strip()
    return int(stripped) if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", stripped) else stripped or None


def _distinct(spec: str, split: str, rows: Rows, *, several: bool) -> list[str]:
    """Return the name of each picture among all splits, as it is or would be below the folder of the data set."""
    names = rows.names
    if len(set(names)) < len(names):  # the names of each file begin anew
        common = os.path.commonpath([str(Path(path).parent) for path in rows.called])
        stems = [Path(os.path.relpath(path, common)).with_suffix("").as_posix() for path in rows.called]
        names = [f"{stems[number]}/{name}" for number, name in zip(rows.file_of, names, strict=True)]
        if len(set(names)) < len(names):
            twice = next(iter({name for name in names if names.count(name) > 1}))
            raise UserError(f"{spec}: {twice} is there twice in {split}; names must differ")
    heads = tuple(f"{word}/" for word in SPLIT_NAMES[split])
    if several and not all(name.startswith(heads) for name in names):
        names = [f"{split}/{name}" for name in names]
    return names
