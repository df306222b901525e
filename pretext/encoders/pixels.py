"""The pixels themselves as an encoder: what a network has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.base import Encoder, Stage


@dataclass(frozen=True)
class Config:
    """Options of `pixels?…`: none."""


class Pixels(Encoder):
    """One stage, `pixels`: the normalised picture. Nothing is random: all seeds are equal.

    Source: Torralba, Fergus and Freeman 2008 (pictures compared at 32×32 pixels; the probes average to their own size).
    """

    def __init__(self, spec: str, input_size: int) -> None:
        super().__init__(spec, input_size)
        self.stages = (Stage("pixels", 3, 1),)
        self.colours = nn.Parameter(torch.eye(3).view(3, 3, 1, 1), requires_grad=False)

    def maps(self, normalised: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """See `Encoder.maps`."""
        return [F.conv2d(normalised, self.colours)]


def build(spec: str, path: str, config: Config, input_size: int) -> Pixels:
    """Build the encoder; `path` and `config` are unused."""
    return Pixels(spec, input_size)
