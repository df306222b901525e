"""Histograms of oriented gradients as an encoder without learning: what a network has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.base import Encoder, Stage
from pretext.system.ranges import check_range

DIRECTIONS = 9
"""Bins over half a turn."""
CLIPPED = 0.2
"""Largest share of one bin in a block of length 1 (Lowe's clipping)."""
EPS = 1e-9


@dataclass(frozen=True)
class Config:
    """Options of `hog?…`."""

    cells: int = 8
    """Cells along each side of a picture of the input size."""

    def __post_init__(self) -> None:
        check_range(self, "cells", least=2, most=64)


class Hog(Encoder):
    """One stage, `hog`: blocks of 2×2 cells with 9 directions each, normalised by L2-Hys.

    A pixel counts for one direction, by the gradient of the colour channel in which it is largest; pixels at the border
    of the picture do not count. Nothing is random: all seeds are equal.

    Source: Dalal and Triggs 2005; cells, directions and normalisation as in scikit-image.
    Deviations: gradients of pictures rounded to 8 bits, so that the noise of resizing has no direction.
    """

    def __init__(self, spec: str, input_size: int, config: Config) -> None:
        super().__init__(spec, input_size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.cell = max(1, input_size // config.cells)
        self.stages = (Stage("hog", 4 * DIRECTIONS, self.cell),)
        self.derivative = nn.Parameter(torch.tensor([-1.0, 0.0, 1.0]), requires_grad=False)

    def maps(self, normalised: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """See `Encoder.maps`."""
        pixels = (normalised * 255).round()
        kernel = self.derivative.detach().to(pixels.dtype).expand(3, 1, 1, 3)
        across = F.pad(F.conv2d(pixels, kernel, groups=3), (1, 1, 0, 0))
        down = F.pad(F.conv2d(pixels, kernel.transpose(2, 3), groups=3), (0, 0, 1, 1))
        size, strongest = torch.hypot(across, down).max(dim=1, keepdim=True)
        across, down = across.gather(1, strongest), down.gather(1, strongest)
        turn = torch.rad2deg(torch.atan2(down, across)) % 180
        direction = (turn * (DIRECTIONS / 180)).long().clamp(max=DIRECTIONS - 1)
        counted = pixels[:, :1].expand(-1, DIRECTIONS, -1, -1) * 0  # not zeros: a traced graph takes any batch
        cells = F.avg_pool2d(counted.scatter_(1, direction, size), self.cell)
        corners = [cells[..., y : y - 1 or None, x : x - 1 or None] for y in (0, 1) for x in (0, 1)]
        blocks = torch.cat(corners, dim=1)
        clipped = F.normalize(blocks, dim=1, eps=EPS).clamp(max=CLIPPED)
        return [F.normalize(clipped, dim=1, eps=EPS)]


def build(spec: str, path: str, config: Config, input_size: int) -> Hog:
    """Build the encoder; `path` is unused.

    Raises:
        ValueError: If the pictures are smaller than two cells.
    """
    if input_size < 8:
        raise ValueError(f"input_size is {input_size}; hog needs 8 px or more")
    return Hog(spec, input_size, config)
