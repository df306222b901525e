"""What is found wrong with a data set when it is opened, and the few lines that say so.

Only annotations and the comparison of files are looked at; `pretext.auditing` looks at every picture.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from pretext.datasets.base import Fault, ImageDataset
from pretext.datasets.files import FileDataset, some
from pretext.datasets.packed import PackedDataset, ResizedDataset
from pretext.system.errors import on_one_line

MOST_SAID = 2
"""Faults that a command prints when it opens data; `python -m pretext data` prints all."""


def faults_of(
    given: Mapping[str, ImageDataset],
    equal: Mapping[str, Int[NDArray[np.int64], "N"]],
    splits: Mapping[str, ImageDataset],
) -> list[Fault]:
    """Return what is wrong between pictures and between splits.

    Args:
        given: The splits of the source.
        equal: The numbers of `equal_pictures` for them.
        splits: Train, val and test, drawn where the source lacks them.
    """
    return [
        *_overlaps(given, equal),
        *_repeated(given, equal),
        *_unshown(splits),
    ]


def _overlaps(given: Mapping[str, ImageDataset], equal: Mapping[str, Int[NDArray[np.int64], "N"]]) -> Iterator[Fault]:
    """Yield a fault for each two splits of the source that share pictures."""
    for one, other in itertools.combinations(given, 2):
        shared = np.flatnonzero(np.isin(equal[other], equal[one]))
        if not len(shared):
            continue
        first = int(shared[0])
        twin = int(np.flatnonzero(equal[one] == equal[other][first])[0])
        pair = f"{_name(given[other], first)} = {_name(given[one], twin)}"
        yield Fault(
            f"{len(shared):,} of {len(equal[other]):,} pictures in {other} are in {one} too, by content: {pair}."
        )


def _repeated(given: Mapping[str, ImageDataset], equal: Mapping[str, Int[NDArray[np.int64], "N"]]) -> Iterator[Fault]:
    """Yield a fault for each split of the source that holds a picture more than once."""
    for name, part in given.items():
        if part.clip_of is not None:  # frames of a clip may well be equal
            continue
        numbers, firsts, counts = np.unique(equal[name], return_index=True, return_counts=True)
        repeated = np.flatnonzero(counts > 1)
        if not len(repeated):
            continue
        first = numbers[repeated[np.argmin(firsts[repeated])]]
        names = dict.fromkeys(_name(part, int(index)) for index in np.flatnonzero(equal[name] == first)[:2])
        pair = " = ".join(names) if len(names) > 1 else f"{next(iter(names))} is listed twice"
        more = int((counts[repeated] - 1).sum())
        about = f"{more:,} of {len(part):,} pictures in {name} repeat another one, by content: {pair}."
        if contradicting := _contradicting(part, equal[name], numbers[repeated]):
            about += f" {contradicting:,} of the repeated pictures have several classes."
        yield Fault(about)


def _contradicting(
    part: ImageDataset, equal: Int[NDArray[np.int64], "N"], repeated: Int[NDArray[np.int64], "R"]
) -> int:
    """Return how many of the repeated pictures have another `label` at each entry."""
    if part.label is None:
        return 0
    labels: dict[int, set[int]] = defaultdict(set)
    rows = np.flatnonzero(np.isin(equal, repeated))
    for number, label in zip(equal[rows].tolist(), part.label[rows].tolist(), strict=True):
        labels[number].add(label)
    return sum(len(found) > 1 for found in labels.values())


def _unshown(splits: Mapping[str, ImageDataset]) -> Iterator[Fault]:
    """Yield a fault for train and test if some of the classes are in none of its pictures."""
    for name in ("train", "test"):
        counts = pictures_by_class(splits[name])
        if counts is None:
            continue
        missing = [splits[name].classes[k] for k in np.flatnonzero(counts == 0)]
        if missing:
            yield Fault(f"No picture of {name} shows {some(missing)} ({len(missing):,} of {len(counts):,} classes).")


def pictures_by_class(part: ImageDataset) -> Int[NDArray[np.int64], "K"] | None:
    """Return the number of pictures that show each class; None if it is not known without decoding."""
    if not part.classes:
        return None
    if part.objects is not None:
        picture = np.repeat(np.arange(len(part)), part.objects.offsets.diff().numpy())
        pairs = np.unique(np.stack([part.objects.labels.numpy(), picture]), axis=1)
        return np.bincount(pairs[0], minlength=len(part.classes))
    if part.label is not None:
        return np.bincount(part.label.numpy(), minlength=len(part.classes))
    return None


def _name(part: ImageDataset, index: int) -> str:
    """Return how a picture of a split of the source is called."""
    if isinstance(part, FileDataset):
        path = Path(part.images[index])
        return path.relative_to(part.root).as_posix() if path.is_relative_to(part.root) else str(path)
    return f"number {index}"


def summary(data: ImageDataset) -> str:
    """Return a sentence with the numbers of pictures by split, what is held out, and what is annotated."""
    counts = {name: len(data.splits[name]) for name in sorted(data.splits, key=standing)}
    total = sum(counts.values())
    held_out = 1 - counts["train"] / total
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    kind = "drawn pictures" if data.synthetic else "pictures"
    classes = f"{len(data.classes):,} classes; " if data.classes else ""
    annotated = ", ".join(sorted(data.annotations)) or "no annotations"
    return (
        f"{data.spec}: {total:,} {kind}: {parts} ({100 * held_out:.0f} % held out from training); {classes}{annotated}"
    )


def standing(name: str) -> tuple[int, str]:
    """Return the key that sorts train, val and test in this order before any other split."""
    known = ("train", "val", "test")
    return (known.index(name) if name in known else len(known)), name


def summary_lines(data: ImageDataset, *, notes: bool = True) -> list[str]:
    """Return `summary`, and with `notes` the first faults and then the other notes in one line."""
    while isinstance(data, PackedDataset | ResizedDataset):
        data = data.base  # whose other splits need no decoding
    if not notes:
        return [summary(data)]
    faults = [note for note in data.notes if isinstance(note, Fault)]
    lines = [summary(data), *(f"  caution: {fault}" for fault in faults[:MOST_SAID])]
    if len(faults) > MOST_SAID:
        lines.append(f"  caution: {len(faults) - MOST_SAID:,} more; python -m pretext data '{data.spec}' lists them")
    decided = [note for note in data.notes if not isinstance(note, Fault)]
    return [*lines, f"  {' '.join(decided)}"] if decided else lines


def say_opened(data: ImageDataset, *, notes: bool = True) -> None:
    """Print `summary_lines` on stderr; of several processes that torchrun has started, the first one does."""
    if os.environ.get("RANK", "0") == "0":
        print("\n".join(map(on_one_line, summary_lines(data, notes=notes))), file=sys.stderr)
