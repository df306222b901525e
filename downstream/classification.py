"""What the classification probes share: who is learnt from, what counts as right, and what guessing scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from downstream.metrics import mean_average_precision
from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_targets, is_multi_label
from pretext.datasets.packed import ResizedDataset
from pretext.errors import UserError
from pretext.judging import Score

TOP_K = 5
"""Where there are more classes than this, being among the best so many counts too."""


class Labelled(NamedTuple):
    """Pictures of a split and their classes."""

    data: ImageDataset
    """The split, at the encoder's size."""
    indices: NDArray[np.int64]
    """Which of its pictures."""
    targets: Int[Tensor, "N ..."]
    """Their classes: N, or N×K of 1, 0 and -1 (see `class_targets`)."""
    num_classes: int

    @property
    def multi(self) -> bool:
        """Whether a picture has any number of classes."""
        return self.targets.ndim == 2

    def some(self, chosen: NDArray[np.int64]) -> Labelled:
        """Return the pictures at these positions."""
        return self._replace(indices=self.indices[chosen], targets=self.targets[torch.from_numpy(chosen)])


def labelled(data: ImageDataset, split: str, *, size: int) -> Labelled:
    """Return the pictures of a split whose classes are known.

    Args:
        data: Any split of the data set.
        split: Which to take.
        size: Side in pixels.

    Raises:
        UserError: If pictures have no classes, there is but one class, or nothing in the split is labelled.
    """
    is_multi_label(data)  # finds fault before anything is decoded
    if len(data.classes) < 2:
        raise UserError(f"{data.spec}: a classifier needs two classes or more, and the data set has {len(data.classes)}")
    sized = at_size(data.split(split), size, bad_images="skip")
    # what is too large to be packed knows its classes without decoding, if anybody does
    targets = class_targets(sized.base if isinstance(sized, ResizedDataset) else sized)
    known = targets >= 0 if targets.ndim == 1 else (targets >= 0).any(dim=1)
    if not known.any():
        raise UserError(f"{data.spec}: no picture of the {split} split has a class; give labelled data")
    indices = known.nonzero().flatten()
    return Labelled(sized, indices.numpy(), targets[indices], len(data.classes))


def training_part(train: Labelled, count: int, *, seed: int) -> Labelled:
    """Return `count` pictures to learn from (all where it is 0 or too many), in an order drawn by the seed.

    With one class a picture, every class has its share as nearly as whole pictures allow. With the same seed,
    fewer are a part of more.

    Raises:
        UserError: If they show fewer than two classes, or the same classes all of them.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(train.indices))
    if not train.multi:
        order = _by_class(order, train.targets.numpy(), rng)
    part = train.some(order[: count or None])
    if part.multi:
        learnable = bool(((part.targets == 1).any(dim=0) & (part.targets == 0).any(dim=0)).any())
    else:
        learnable = len(part.targets.unique()) > 1
    if not learnable:
        raise UserError(
            f"{train.data.spec}: {len(part.indices)} training pictures do not tell two classes apart; "
            "raise train_images or give other data"
        )
    return part


def _by_class(
    order: NDArray[np.int64], labels: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the same pictures so that every beginning has each class in proportion."""
    place = np.empty(len(order))
    for label in np.unique(labels):
        mine = np.flatnonzero(labels[order] == label)
        # the offset decides, without favour, which class the odd picture comes from
        place[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    return order[np.argsort(place, kind="stable")]


def quality(scores: Float[Tensor, "N K"], truth: Labelled) -> float:
    """Return what a stage or a setting is chosen by: top-1, or mAP where a picture has several classes.

    In percent; 0 where there is nothing to find.
    """
    if truth.multi:
        return mean_average_precision(scores.cpu().numpy(), truth.targets.numpy())
    return 100 * float((scores.argmax(dim=1).cpu() == truth.targets).double().mean())


def class_scores(
    scores: Float[Tensor, "N K"], truth: Labelled, train: Labelled, *, stage: str, headline: bool
) -> list[Score]:
    """Return what is reported of a classifier: top1 (and top5 of more than five classes), or mAP.

    Chance is what the same answer for every picture scores: the classes that are most frequent in the training
    pictures; for mAP, the share of pictures with the class, which is what a random order comes to.

    Args:
        scores: Of every class, the likeliest highest.
        truth: The test pictures.
        train: What was learnt from.
        stage: The stage that was read.
        headline: Whether a table quotes the first.

    Raises:
        UserError: If several classes a picture are asked for, and no test picture has any.
    """
    n = len(truth.indices)
    if truth.multi:
        known, present = truth.targets >= 0, (truth.targets == 1).any(dim=0)
        if not present.any():
            raise UserError(f"{truth.data.spec}: no class to find in {n} test pictures; give more test pictures")
        share = (truth.targets == 1).sum(dim=0) / known.sum(dim=0).clamp(min=1)
        chance = 100 * float(share[present].double().mean())
        return [Score("mAP", quality(scores, truth), "%", True, chance, n, stage, headline)]
    frequent = torch.bincount(train.targets, minlength=truth.num_classes).argsort(descending=True, stable=True)
    found = []
    for k in (1, TOP_K) if truth.num_classes > TOP_K else (1,):
        best = scores.topk(k, dim=1).indices.cpu()
        items = 100 * (best == truth.targets[:, None]).any(dim=1).double()
        chance = 100 * float(torch.isin(truth.targets, frequent[:k]).double().mean())
        found.append(
            Score(f"top{k}", float(items.mean()), "%", True, chance, n, stage, headline and k == 1, items.numpy())
        )
    return found
