"""Which labelled pictures a probe may learn from: the same few for every encoder; and what several draws say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import ResizedDataset
from pretext.datasets.splitting import Subset
from pretext.judging import Score
from pretext.system.errors import UserError


def draw_labelled(targets: Int[Tensor, "N ..."], count: int, *, seed: int) -> NDArray[np.int64]:
    """Return the indices of `count` pictures in random order, classes in turn where each picture has one.

    Args:
        targets: See `class_targets`; pictures of class -1 are passed over.
        count: How many; all where it is 0 or too large.
        seed: Of the order; with the same seed, fewer are a part of more.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    if targets.ndim == 1:
        labels = targets.numpy()[order]
        order, labels = order[labels >= 0], labels[labels >= 0]
        order = order[np.argsort(turns(labels), kind="stable")]
    return order[:count] if count else order


def few_of_each(
    targets: Int[Tensor, "N ..."], count: int, *, sample: int
) -> tuple[NDArray[np.int64], Int[Tensor, "M ..."]]:
    """Return the indices of `count` pictures of every class, and their targets; a class with fewer gives all.

    Fewer are a part of more. Where pictures have any number of classes, one that is drawn for one class may show
    another; what a class has beyond its `count` is set to -1, so that each class has `count` that show it, and up to
    `count` times as many as there are other classes that do not.

    Args:
        targets: See `class_targets`; what is -1 is not drawn for.
        count: k.
        sample: Which of the fixed samples; see `fixed_order`.
    """
    order = fixed_order(len(targets), sample=sample)
    ordered = targets[torch.from_numpy(order)]
    if targets.ndim == 1:
        labels = ordered.numpy()
        taken = (labels >= 0) & (turns(labels) < count)
        return order[taken], ordered[torch.from_numpy(taken)]
    shown = ordered == 1
    beyond = shown & (shown.cumsum(0) > count)
    drawn = (shown & ~beyond).any(dim=1)
    return order[drawn.numpy()], ordered.masked_fill(beyond, -1)[drawn]


def share_of_each(targets: Int[Tensor, "N ..."], share: float, *, sample: int) -> NDArray[np.int64]:
    """Return the indices of a share of the pictures, the same share of every class, at least one of each.

    A smaller share is a part of a larger one. Where pictures have any number of classes, each counts as one of the
    rarest class that it shows, and those that show none as a class of their own, which may be left with no picture.

    Args:
        targets: See `class_targets`; pictures that are -1 throughout are passed over.
        share: Above 0, at most 1; of a class's pictures, rounded to the nearest whole number.
        sample: Which of the fixed samples; see `fixed_order`.
    """
    order = fixed_order(len(targets), sample=sample)
    kinds = strata(targets)[order]
    order, kinds = order[kinds >= 0], kinds[kinds >= 0]
    if targets.ndim == 1:
        needed = turns(kinds) == 0
    else:
        shown = targets[torch.from_numpy(order)] == 1
        needed = (shown & (shown.cumsum(0) == 1)).any(dim=1).numpy()
    first = np.argsort(~needed, kind="stable")
    order, kinds, needed = order[first], kinds[first], needed[first]
    sizes = np.bincount(kinds)
    wanted = np.maximum(np.floor(share * sizes + 0.5), np.bincount(kinds[needed], minlength=len(sizes)))
    return order[turns(kinds) < wanted[kinds]]


def fixed_order(count: int, *, sample: int) -> NDArray[np.int64]:
    """Return 0 to `count` - 1 by a hash of sample and number: the same for any seed, machine and version of NumPy.

    Source: Steele et al. 2014 (SplitMix64's step, a bijection of 64 bits: no two numbers of a sample tie).
    """
    places: NDArray[np.uint64] = np.arange(count, dtype=np.uint64)
    start = _mixed(np.full(1, sample, dtype=np.uint64))
    return np.argsort(_mixed(np.add(start, places, dtype=np.uint64)), kind="stable")


def strata(targets: Int[Tensor, "N ..."]) -> NDArray[np.int64]:
    """Return the one class that a picture counts as: its own, or the rarest shown; K shows none, -1 is unknown."""
    if targets.ndim == 1:
        return targets.numpy()
    shown = targets == 1
    counts = shown.sum(0)
    rarest = torch.where(shown, counts, len(targets) + 1).argmin(dim=1)
    kinds = torch.where(shown.any(1), rarest, torch.where((targets == 0).any(1), targets.shape[1], -1))
    return kinds.numpy()


def turns(kinds: Int[np.ndarray, "N"]) -> NDArray[np.int64]:
    """Return how many before each are of the same kind."""
    order = np.argsort(kinds, kind="stable")
    _, starts, sizes = np.unique(kinds[order], return_index=True, return_counts=True)
    found = np.empty(len(kinds), dtype=np.int64)
    found[order] = np.arange(len(kinds)) - np.repeat(starts, sizes)
    return found


def reached_by_all(data: ImageDataset, targets: Int[Tensor, "N ..."], counts: Sequence[int]) -> list[int]:
    """Return those counts that no class has fewer pictures than, and say on stderr which are left out and why.

    Args:
        data: Names the data set and its classes.
        targets: See `class_targets`. A class that no picture shows is passed over.
        counts: Pictures of each class.
    """
    shown = targets[targets >= 0].bincount() if targets.ndim == 1 else (targets == 1).sum(0)
    present = shown.nonzero()[:, 0]
    rarest = int(present[shown[present].argmin()])
    most = int(shown[rarest])
    if beyond := [str(count) for count in counts if count > most]:
        print(
            f"{data.spec}: left out k={', '.join(beyond)}: {most} training picture(s) show {data.classes[rarest]}",
            file=sys.stderr,
        )
    return [count for count in counts if count <= most]


def with_train(data: ImageDataset, indices: NDArray[np.int64], *, size: int) -> ImageDataset:
    """Return a data set at size×size whose training split is some pictures of `data`'s, all else as it was.

    Args:
        data: Any of the splits.
        indices: Pictures of the training split as it is at that size, undecodable ones left out.
        size: Side in pixels.
    """
    sized = at_size(data.split("train"), size, bad_images="skip")
    train = ResizedDataset(Subset(sized, indices), size)
    train.splits = {"train": train, "val": sized.split("val"), "test": sized.split("test")}
    return train


def over_samples(scores: Sequence[Score], name: str) -> list[Score]:
    """Return the mean over samples of one metric, and its standard deviation where there are two samples or more.

    Args:
        scores: One of each sample, of one metric, stage and set of test items.
        name: The metric's, in place of theirs.
    """
    first, values = scores[0], [score.value for score in scores]
    items = [score.items for score in scores if score.items is not None]
    mean = replace(
        first,
        metric=name,
        value=float(np.mean(values)),
        items=np.mean(items, axis=0) if len(items) == len(scores) else None,
    )
    if len(values) == 1:
        return [mean]
    spread = float(np.std(values, ddof=1))
    return [
        mean,
        replace(mean, metric=f"{name} sd", value=spread, higher_is_better=False, chance=None, items=None),
    ]


def check_classes(spec: str, targets: Int[Tensor, "N ..."]) -> None:
    """Raise a `UserError` unless there are two classes to tell apart among the training pictures."""
    if targets.ndim == 1:
        if len(torch.unique(targets[targets >= 0])) < 2:
            raise UserError(f"{spec}: {len(targets)} training pictures show fewer than two classes; give more data")
    elif not ((targets == 1).any(0) & (targets == 0).any(0)).any():
        raise UserError(f"{spec}: no class is in some of {len(targets)} training pictures but not all; give more data")


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)  # arrays, not scalars, wrap around without a warning
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
