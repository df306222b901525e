"""Detect representation collapse during training: the spread and the effective rank of the encoder's features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pretext.encoders.base import Encoder, evaluating
from pretext.system.errors import UserError

COLLAPSED = 0.01
"""Features with a smaller spread count as collapsed."""
MIN_IMAGES = 4
"""The features of fewer images say nothing about a collapse: of one, their spread is always 0."""
MAX_IMAGES = 256
"""Maximum number of images whose features are examined."""


def spread(vectors: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return √D times the mean standard deviation of the components of the L2-normalised vectors.

    It is 1 for vectors spread evenly over the sphere, and 0 for identical vectors.

    Source: Chen and He 2021, arXiv 2011.10566, section 4.1.
    """
    normalised = F.normalize(vectors.float(), dim=1)
    return normalised.std(dim=0, correction=0).mean() * normalised.shape[1] ** 0.5


def rank_me(vectors: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return the effective rank: the exponential of the entropy of the normalised singular values.

    It lies between 1 and min(N, D), so compare only ranks computed from equally many vectors.

    Source: Garrido et al. 2023, arXiv 2210.02885, equation 1.
    """
    values = torch.linalg.svdvals(vectors.float())
    shares = values / values.sum().clamp(min=1e-12) + 1e-7
    return (-(shares * shares.log()).sum()).exp()


def check_finite(features: Float[Tensor, "N D"]) -> None:
    """Raise a `UserError` if a feature is not finite."""
    if not features.isfinite().all():
        raise UserError("the encoder's features are not finite; lower --learning-rate or set --clip-norm")


@torch.no_grad()
def feature_statistics(encoder: Encoder, images: UInt8[Tensor, "B 3 S S"]) -> dict[str, float]:
    """Return the spread (`feature_std`) and the effective rank (`rank_me`) of the features of the first images.

    Raises:
        UserError: If a feature is not finite.
    """
    with evaluating(encoder):
        features = encoder.embed(images[:MAX_IMAGES])
    check_finite(features)
    return {"feature_std": float(spread(features)), "rank_me": float(rank_me(features))}
