"""Prototypes (learned cluster directions), and the cross-entropy between the assignments of different views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Prototypes(nn.Module):
    """Cosine similarity of vectors with learned directions, one per cluster.

    Vectors and directions are normalised to length 1. Cosines are float32, also in mixed precision.

    Attributes:
        frozen: While true, the gradient of the directions is None, so that optimisers skip them: they neither decay
            nor gather moments. It lies on the CPU, wherever the module is, so that reading it waits for no GPU.

    Source: Caron et al. 2020, arXiv 2006.09882, section 3.1 and appendix A (normalised, fixed during the first
        epoch); Caron et al. 2021, arXiv 2104.14294, appendix C (l2 bottleneck and weight normalisation).
    Deviations: directions are normalised in the forward pass; SwAV normalises the parameters after each step.
    """

    frozen: Tensor

    def __init__(self, length: int, count: int, *, frozen: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(count, length), dim=1))
        self.register_buffer("frozen", torch.tensor(frozen))

    def forward(self, vectors: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Return the cosine of each vector with each direction."""
        with torch.autocast(vectors.device.type, enabled=False):
            weight = _Held.apply(self.weight) if self.frozen else self.weight
            return F.normalize(vectors.float(), dim=1) @ F.normalize(weight, dim=1).T

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Prototypes:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.frozen = self.frozen.cpu()
        return self


class _Held(torch.autograd.Function):
    """Return the input, and give it no gradient. The operations of a step are the same as with one."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        return None


def cross_view_entropy(targets: Float[Tensor, "T B K"], logits: Float[Tensor, "V B K"]) -> Float[Tensor, ""]:
    """Return the cross-entropy of view pairs, averaged over every target and every other view of the same image.

    Args:
        targets: Target distributions of the first T views; detached.
        logits: Logits of all V views; the first T views are those of the targets.

    Raises:
        ValueError: If there is only one view.

    Source: Caron et al. 2020, equations 1 and 6; Caron et al. 2021, equation 3.
    """
    (T, B, _), V = targets.shape, len(logits)
    if V < 2:
        raise ValueError("one view has no other view to be compared with; give two or more")
    with torch.autocast(logits.device.type, enabled=False):
        pairs = torch.einsum("tbk,vbk->tv", targets.detach().float(), F.log_softmax(logits.float(), dim=2))
    other = ~torch.eye(T, V, dtype=torch.bool, device=pairs.device)
    return -(pairs * other).sum() / (B * (T * V - T))
