"""A momentum copy of a network: an exponential moving average of its weights, without gradients.

Source: He et al. 2020, arXiv 1911.05722, equation 2; Grill et al. 2020, arXiv 2006.07733, section 3.1 (the cosine).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from pretext.modules.schedules import cosine


class MomentumCopy(nn.Module):
    """A copy of a network whose parameters are a moving average of the original's.

    Only parameters are averaged; batch normalisation keeps statistics of its own batches.

    Attributes:
        network: The copy.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *given: Any) -> Any:
        """Return the output of the copy, without gradient."""
        return self.network(*given)

    @torch.no_grad()
    def follow(self, network: nn.Module, momentum: float) -> None:
        """Set each parameter to `momentum` times itself plus `1 - momentum` times that of `network`."""
        for mine, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, 1 - momentum)


def rising_momentum(start: float, progress: float) -> float:
    """Return the momentum at a share of the run: `start` at 0, a cosine up to 1 at the end."""
    return 1 - (1 - start) * cosine(progress)
