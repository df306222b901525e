"""Draw the labelled images that a probe trains on, the same for every encoder; average scores over samples."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from downstream.classification import NOT_SAMPLED
from pretext.datasets.base import ImageDataset
from pretext.judging import Score


def draw_labelled(targets: Int[Tensor, "N ..."], count: int, *, seed: int) -> NDArray[np.int64]:
    """Return the indices of `count` images in random order, balanced by class if each image has one.

    Args:
        targets: See `class_targets`; images of class -1 are skipped.
        count: Number of images; all if 0 or too large.
        seed: Seed of the order; with the same seed, a smaller draw is a subset of a larger one.
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
    """Return the indices of `count` images of every class, and their targets; a class with fewer gives all.

    A smaller sample is a subset of a larger one. In multi-label data, an image drawn for one class may show another.
    The surplus positives of a class are set to -1: each class has `count` positives, and at most `count`·(K - 1)
    negatives.

    Args:
        targets: See `class_targets`; -1 is not drawn.
        count: Number of images per class, k.
        sample: Number of the fixed sample; see `fixed_order`.
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
    """Return the indices of the same share of every class, at least one image of each.

    A smaller share is a subset of a larger one. In multi-label data, an image counts for the rarest class that it
    shows. Images without any class form a class of their own, which may be left without images.

    Args:
        targets: See `class_targets`; images that are -1 in all classes are skipped.
        share: Share of each class's images, above 0 and at most 1; the count is rounded to the nearest integer.
        sample: Number of the fixed sample; see `fixed_order`.
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
    """Return a permutation of 0 to `count` - 1, fixed for each `sample`, on any machine and version of NumPy.

    The numbers are sorted by a hash of sample and number.

    Source: Steele et al. 2014 (the step of SplitMix64, a bijection of 64 bits: no two hashes of a sample tie).
    """
    places: NDArray[np.uint64] = np.arange(count, dtype=np.uint64)
    start = _mixed(np.full(1, sample, dtype=np.uint64))
    return np.argsort(_mixed(np.add(start, places, dtype=np.uint64)), kind="stable")


def strata(targets: Int[Tensor, "N ..."]) -> NDArray[np.int64]:
    """Return one class per image: its own, or the rarest it shows; K if it shows none, -1 if unknown."""
    if targets.ndim == 1:
        return targets.numpy()
    shown = targets == 1
    counts = shown.sum(0)
    rarest = torch.where(shown, counts, len(targets) + 1).argmin(dim=1)
    kinds = torch.where(shown.any(1), rarest, torch.where((targets == 0).any(1), targets.shape[1], -1))
    return kinds.numpy()


def turns(kinds: Int[np.ndarray, "N"]) -> NDArray[np.int64]:
    """Return how many earlier entries have the same kind, for each entry."""
    order = np.argsort(kinds, kind="stable")
    _, starts, sizes = np.unique(kinds[order], return_index=True, return_counts=True)
    found = np.empty(len(kinds), dtype=np.int64)
    found[order] = np.arange(len(kinds)) - np.repeat(starts, sizes)
    return found


def reached_by_all(data: ImageDataset, targets: Int[Tensor, "N ..."], counts: Sequence[int]) -> list[int]:
    """Return the counts for which every class has enough images; print those left out on stderr.

    Args:
        data: The data set, for the names of its classes.
        targets: See `class_targets`. A class without images is ignored.
        counts: Numbers of images per class.
    """
    shown = targets[targets >= 0].bincount() if targets.ndim == 1 else (targets == 1).sum(0)
    present = shown.nonzero()[:, 0]
    rarest = int(present[shown[present].argmin()])
    most = int(shown[rarest])
    if beyond := [str(count) for count in counts if count > most]:
        print(
            f"{data.spec}: left out k={', '.join(beyond)}: only {most} training image(s) show {data.classes[rarest]}",
            file=sys.stderr,
        )
    return [count for count in counts if count <= most]


def over_samples(scores: Sequence[Score], name: str) -> list[Score]:
    """Return the mean of a metric over samples, and its standard deviation if there are at least two.

    Args:
        scores: One score per sample, all of the same metric, stage and test items.
        name: Name of the new metric.
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


def every_metric_over_samples(samples: Sequence[Sequence[Score]], name: str) -> list[Score]:
    """Return `over_samples` of every metric but top-5.

    Args:
        samples: The scores of each sample, of the same metrics in the same order.
        name: Name of the new metrics, with `{}` for the metric.
    """
    by_metric = [scores for scores in zip(*samples, strict=True) if scores[0].metric not in NOT_SAMPLED]
    return [score for scores in by_metric for score in over_samples(scores, name.format(scores[0].metric))]


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)  # arrays, not scalars, wrap around without a warning
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
