"""Which labelled pictures a probe may learn from: the same few for every encoder."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from pretext.errors import UserError


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
        turn = np.zeros(len(order), dtype=np.int64)
        for label in np.unique(labels):
            mine = labels == label
            turn[mine] = np.arange(mine.sum())
        order = order[np.argsort(turn, kind="stable")]
    return order[:count] if count else order


def check_classes(spec: str, targets: Int[Tensor, "N ..."]) -> None:
    """Raise a `UserError` unless there are two classes to tell apart among the training pictures."""
    if targets.ndim == 1:
        if len(torch.unique(targets[targets >= 0])) < 2:
            raise UserError(f"{spec}: {len(targets)} training pictures show fewer than two classes; give more data")
    elif not ((targets == 1).any(0) & (targets == 0).any(0)).any():
        raise UserError(f"{spec}: no class is in some of {len(targets)} training pictures but not all; give more data")
