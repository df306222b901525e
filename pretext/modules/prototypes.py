"""Directions that vectors are compared with, and the loss of views that predict each other's answer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Prototypes(nn.Module):
    """Cosines of vectors and learned directions, one a cluster; while `frozen` the directions get no gradient.

    Both sides have length 1, whatever length the parameters have. The cosines are float32 in mixed precision too.

    Source: Caron et al. 2020, arXiv 2006.09882, section 3.1 and appendix A (normalised, fixed during the first
        epoch); Caron et al. 2021, arXiv 2104.14294, appendix C (l2 bottleneck and weight normalisation).
    Deviations: the length is divided out in the forward pass, where SwaV normalises after each step.
    """

    frozen: Tensor

    def __init__(self, length: int, count: int, *, frozen: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(count, length), dim=1))
        self.register_buffer("frozen", torch.tensor(frozen))

    def forward(self, vectors: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Return the cosine of each vector and each direction."""
        with torch.autocast(vectors.device.type, enabled=False):
            directions = F.normalize(self.weight, dim=1)
            directions = torch.where(self.frozen, directions.detach(), directions)
            return F.normalize(vectors.float(), dim=1) @ directions.T


def cross_view_entropy(targets: Float[Tensor, "T B K"], logits: Float[Tensor, "V B K"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of each target and each other view of the same picture.

    Args:
        targets: Distributions, of the first T views; no gradient flows into them.
        logits: Of all V views, the first T of them those of the targets.

    Source: Caron et al. 2020, equations 1 and 6; Caron et al. 2021, equation 3.
    """
    (T, B, _), V = targets.shape, len(logits)
    if V < 2:
        raise ValueError("one view has no other to be compared with")
    with torch.autocast(logits.device.type, enabled=False):
        pairs = torch.einsum("tbk,vbk->tv", targets.detach().float(), F.log_softmax(logits.float(), dim=2))
    other = ~torch.eye(T, V, dtype=torch.bool, device=pairs.device)
    return -(pairs * other).sum() / (B * (T * V - T))
