"""Has an encoder collapsed? Two numbers that say so while it trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pretext.encoders.base import Encoder, evaluating

COLLAPSED = 0.01
"""A spread below this is a collapse."""
WATCHED = 256
"""Pictures that are looked at, at most."""


def spread(vectors: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return √D times the mean standard deviation of the normalised vectors' components.

    1 for vectors all around the sphere, 0 for one and the same.

    Source: Chen and He 2021, arXiv 2011.10566, section 4.1.
    """
    normalised = F.normalize(vectors.float(), dim=1)
    return normalised.std(dim=0, correction=0).mean() * normalised.shape[1] ** 0.5


def rank_me(vectors: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return the effective rank: the exponential of the entropy of the singular values' shares.

    Between 1 and min(N, D); few vectors bound it from above, so that only ranks of equally many compare.

    Source: Garrido et al. 2023, arXiv 2210.02885, equation 1.
    """
    values = torch.linalg.svdvals(vectors.float())
    shares = values / values.sum().clamp(min=1e-12) + 1e-7
    return (-(shares * shares.log()).sum()).exp()


@torch.no_grad()
def watched(encoder: Encoder, images: UInt8[Tensor, "B 3 S S"]) -> dict[str, float]:
    """Return the spread (`feature_std`) and the effective rank (`rank_me`) of features of some pictures."""
    with evaluating(encoder):
        features = encoder.embed(images[:WATCHED])
    return {"feature_std": float(spread(features)), "rank_me": float(rank_me(features))}
