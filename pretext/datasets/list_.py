"""`list:FILE`: a text file that names the pictures, one a line, and their classes.

A line is the path of a picture, relative to the folder of the list, and optionally a tab and the picture's class: a
name, or a number. The encoding is UTF-8. Empty lines are skipped; there are no comments, since a picture's
name may begin with any character.

Without further keys all pictures are train; the keys `val=` and `test=` name the lists of the other splits.
The order of the lines has no effect: pictures are sorted by their paths, as in `folder`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pretext.datasets.base import ImageDataset
from pretext.datasets.files import FileDataset, text_lines
from pretext.datasets.stored_splits import Label, as_label, class_numbers, folder_order, named_classes
from pretext.system.errors import UserError
from pretext.system.specs import path_of


@dataclass(frozen=True)
class Options:
    """Options of `list:FILE?…`."""

    val: str | None = None
    """List of the validation pictures, relative to the folder of FILE; None draws them from train."""
    test: str | None = None
    """List of the test pictures, relative to the folder of FILE; None takes val, or draws them from train."""
    label: Literal["none"] | None = None
    """Whether to read classes: none reads none; None reads them where there are any."""
    classes: str | None = None
    """File of class names, one a line, in the order of their numbers; None looks for classes.txt beside FILE."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits that the lists name; see the module.

    Raises:
        UserError: If a list cannot be read or names no pictures, a picture does not exist, or a class is unknown.
    """
    spec = f"list:{path}"
    if not path:
        raise UserError("list: the path is missing; write list:FILE")
    file = path_of(path)
    if not file.is_file():
        raise UserError(f"{spec}: {'is a folder; give the text file' if file.is_dir() else 'no such file'}")
    root = file.parent
    lists = {"train": file} | {
        split: root / name for split, name in (("val", options.val), ("test", options.test)) if name is not None
    }
    read = {split: _read(root, each) for split, each in lists.items()}
    notes: list[str] = []
    labels = {
        split: ([None if options.label else label for _, label in entries], [path for path, _ in entries])
        for split, entries in read.items()
    }
    numbers, classes = class_numbers(spec, labels, named_classes(spec, root, options.classes), notes)
    splits: dict[str, ImageDataset] = {}
    for split, entries in read.items():
        images = [image for image, _ in entries]
        if not classes:
            splits[split] = FileDataset(root=root, images=images)
        elif split in numbers:
            label = torch.tensor(numbers[split], dtype=torch.int64)
            splits[split] = FileDataset(root=root, images=images, classes=classes, label=label)
    splits["train"].notes = tuple(notes)
    return splits


def _read(root: Path, file: Path) -> list[tuple[str, Label]]:
    """Return the path and the class of each picture of a list, sorted by path."""
    entries: list[tuple[str, Label]] = []
    absent: list[tuple[int, str]] = []
    for number, line in enumerate(text_lines(file, "a list of pictures, one a line"), 1):
        if not line:
            continue
        name, _, label = line.partition("\t")
        image = os.path.normpath(root / name.strip())
        if not os.path.isfile(image):  # noqa: PTH113 - a million of them
            absent.append((number, image))
        entries.append((image, as_label(label)))
    if absent:
        of = f" ({len(absent):,} of {len(entries):,} pictures are missing)" if len(entries) > 1 else ""
        raise UserError(f"{file}, line {absent[0][0]}: no picture {absent[0][1]}{of}; paths start from {root}")
    if not entries:
        raise UserError(f"{file}: names no pictures")
    return sorted(entries, key=lambda entry: folder_order(Path(os.path.relpath(entry[0], root)).as_posix()))
