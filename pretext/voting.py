"""Weighted votes of nearest neighbours, for the k-NN probe and for watching a run."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def vote_shares(
    cosines: Float[Tensor, "Q N"],
    rows: Int[Tensor, "Q N"],
    targets: Int[Tensor, "D ..."],
    *,
    classes: int,
    ks: list[int],
    temperature: float,
) -> dict[int, Float[Tensor, "Q K"]]:
    """Return the logarithm of each class's share of the votes, by k.

    Args:
        cosines: Cosines of each query's N nearest vectors, best first.
        rows: Rows of these vectors in the database.
        targets: Classes of the database, from 0, or 1, 0 and -1 for each class; unknown labels (-1) do not vote.
        classes: Number of classes K.
        ks: Numbers of neighbours, at most N.
        temperature: A neighbour's vote is exp(cosine / temperature).

    Source: Wu et al. 2018, arXiv 1805.01978, section 3.4.
    """
    weights = ((cosines - cosines[:, :1]) / temperature).exp()  # relative to the nearest, against overflow
    found = {}
    for k in ks:
        labels = targets[rows[:, :k]]
        if targets.ndim == 1:
            known = weights[:, :k] * (labels >= 0)
            votes = known.new_zeros(len(rows), classes).scatter_add_(1, labels.clamp(min=0), known)
            all_votes = known.sum(1, keepdim=True)
        else:
            votes, all_votes = (
                torch.einsum("qk,qkc->qc", weights[:, :k], each.float()) for each in (labels == 1, labels >= 0)
            )
        found[k] = (votes / all_votes.clamp(min=1e-12) + 1e-6).log()
    return found
