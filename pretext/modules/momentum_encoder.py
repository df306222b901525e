"""A slow copy of a network: its weights follow the trained ones as a moving average, and get no gradient.

Source: He et al. 2020, arXiv 1911.05722, equation 2; Grill et al. 2020, arXiv 2006.07733, section 3.1 (the cosine).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from pretext.modules.schedules import cosine


class MomentumCopy(nn.Module):
    """Answers as the network it was made of would, a while ago.

    Its batch normalisation sees its own batches; what is averaged are the weights. Attributes: `network`, the copy.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *given: Any) -> Any:
        """Return what the copy answers; no gradient flows."""
        return self.network(*given)

    @torch.no_grad()
    def follow(self, network: nn.Module, momentum: float) -> None:
        """Keep the share `momentum` of each weight, and take the rest from `network`, which is of the same shape."""
        for mine, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, 1 - momentum)


def rising_momentum(start: float, progress: float) -> float:
    """Return the momentum at a share of the run: `start` at 0, a cosine up to 1 at the end."""
    return 1 - (1 - start) * cosine(progress)
