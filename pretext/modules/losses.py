"""Cross-entropies for labels that may be unknown: one class an image, or any number of classes."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def one_class_loss(logits: Float[Tensor, "B K"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over the images with a known class.

    Args:
        logits: One per class.
        labels: 0 to K - 1; -1 is unknown.

    Returns:
        0, with a zero gradient, if no class is known; `F.cross_entropy` returns NaN there.
    """
    total = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    return total / (labels >= 0).sum().clamp(min=1)


def many_class_loss(logits: Float[Tensor, "B K"], labels: Int[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy over the known entries; 0 if none is known.

    The sum is divided by the number of known entries, not by B or B·K. The scale of the loss then does not depend on
    how many entries are unknown, nor on the number of classes.

    Args:
        logits: One per class.
        labels: 1 is present, 0 is absent, -1 is unknown.
    """
    return many_class_terms(logits, labels).sum() / (labels >= 0).sum().clamp(min=1)


def many_class_terms(logits: Float[Tensor, "B K"], labels: Int[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Return the binary cross-entropy of every entry, 0 where the label is unknown. See `many_class_loss`."""
    terms = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits), reduction="none")
    return terms * (labels >= 0)
