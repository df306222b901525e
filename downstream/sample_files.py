"""Low-shot samples as files: the images and their labels, so that others can train on the same ones."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from downstream.picture_files import name_of
from pretext.datasets.base import ImageDataset
from pretext.datasets.files import FileDataset
from pretext.datasets.packed import PackedDataset
from pretext.datasets.view import source_of
from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError, did_you_mean

HEADER = ["picture", "class", "said"]
Sample = tuple[NDArray[np.int64], Int[Tensor, "M ..."]]
"""Indices of images, and their targets; see `few_of_each`."""


def write_samples(folder: Path, data: ImageDataset, drawn: Mapping[int, Sequence[Sample]]) -> None:
    """Write `sample1_k4.csv` etc.: one line for each class that an image shows (1) or is not used for (-1).

    An image is named by its path below the data set's folder. If the images are not files, or some were left out, it is
    named by its number in the split. A class without a line is absent from the image. Names that are
    not UTF-8 are escaped.

    Args:
        folder: Folder to write to.
        data: The training split, resized.
        drawn: Samples by k.
    """
    names, classes = _names(data), _in_utf8(data.classes)
    for k, samples in drawn.items():
        for number, (indices, targets) in enumerate(samples, 1):
            labels = _label_matrix(targets, len(data.classes))
            with (
                atomic_write(folder / f"sample{number}_k{k}.csv") as beside,
                beside.open("w", encoding="utf-8", newline="") as file,
            ):
                lines = csv.writer(file, lineterminator="\n")
                lines.writerow(HEADER)
                for row, label in labels.nonzero().tolist():
                    lines.writerow([names[indices[row]], classes[label], int(labels[row, label])])


def read_sample(folder: Path, data: ImageDataset, known: Int[Tensor, "N ..."], *, k: int, number: int) -> Sample:
    """Read a sample in the format of `write_samples`, or of Goyal et al. 2019: `…sample1_k4.npy`, N×K.

    Args:
        folder: Folder with one file for this number and k.
        data: The training split, resized.
        known: Its `class_targets`.
        k: Number of images per class.
        number: Number of the sample, from 1.

    Raises:
        UserError: If there is not exactly one such file, if its images or classes are not the data set's, or if its
            labels contradict the data set's.
    """
    name = f"sample{number}_k{k}"
    files = [path for kind in ("csv", "npy") for path in folder.glob(f"*{name}.{kind}")]
    if len(files) != 1:
        raise UserError(f"{folder}: {len(files)} files are named *{name}.csv or *{name}.npy; expected one")
    truth = _label_matrix(known, len(data.classes))
    try:
        indices, labels = (_read_csv if files[0].suffix == ".csv" else _read_npy)(files[0], data)
    except OSError as error:
        raise UserError(f"{files[0]}: {error.strerror or error}") from None
    except (ValueError, EOFError, csv.Error) as error:
        raise UserError(f"{files[0]}: not a sample file: {error}") from None
    wrong = ((labels >= 0) & (truth[indices] >= 0) & (labels != truth[indices])).nonzero()
    if len(wrong):
        row, label = wrong[0].tolist()
        image, does = _names(data)[indices[row]], "shows" if labels[row, label] else "does not show"
        raise UserError(f"{files[0]}: says that {image} {does} {data.classes[label]}, which contradicts {data.spec}")
    return indices, labels


def _read_csv(file: Path, data: ImageDataset) -> tuple[NDArray[np.int64], Tensor]:
    classes = _in_utf8(data.classes)
    row_of, column_of = ({name: i for i, name in enumerate(names)} for names in (_names(data), classes))
    rows: dict[int, Tensor] = {}
    with file.open(encoding="utf-8", newline="") as opened:
        header, *lines = csv.reader(opened)
        if header != HEADER:
            raise ValueError(f"begins with {','.join(header)}; expected {','.join(HEADER)}")
        for image, name, label in lines:
            if image not in row_of:
                raise UserError(f"{file}: {data.spec} has no training image {image}")
            if name not in column_of:
                raise UserError(f"{file}: no class {name!r}; {did_you_mean(name, classes)}")
            if label not in ("1", "-1"):
                raise ValueError(f"says {label} for {image}; expected 1 or -1")
            row = rows.setdefault(row_of[image], torch.zeros(len(data.classes), dtype=torch.int64))
            row[column_of[name]] = int(label)
    if not rows:
        raise ValueError("names no image")
    return np.array([*rows]), torch.stack([*rows.values()])


def _read_npy(file: Path, data: ImageDataset) -> tuple[NDArray[np.int64], Tensor]:
    labels = np.load(file, allow_pickle=False)
    if labels.shape != (len(data), len(data.classes)) or not np.isin(labels, (-1, 0, 1)).all():
        size = "×".join(map(str, labels.shape))
        raise ValueError(f"{size} of {labels.dtype}; expected {len(data)}×{len(data.classes)} of 1, 0 and -1")
    indices = np.flatnonzero((labels >= 0).any(axis=1))
    if not len(indices):
        raise ValueError("names no image")
    return indices, torch.from_numpy(labels[indices].astype(np.int64))


def _names(data: ImageDataset) -> list[str]:
    numbers = range(len(data))
    if isinstance(data, PackedDataset) and data.skipped:  # its source would have to be decoded again
        return list(map(str, numbers))
    sources = [source_of(data, number) for number in numbers]
    return _in_utf8(
        name_of(source, row) if isinstance(source, FileDataset) else str(number)
        for number, (source, row) in enumerate(sources)
    )


def _in_utf8(names: Iterable[str]) -> list[str]:
    """Return names as a text file can hold them: those of files need not be UTF-8."""
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]


def _label_matrix(targets: Int[Tensor, "N ..."], classes: int) -> Int[Tensor, "N K"]:
    if targets.ndim == 2:
        return targets
    return torch.where(targets[:, None] >= 0, F.one_hot(targets.clamp(min=0), classes), -1)
