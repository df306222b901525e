"""Holes: which pixels are taken out of a picture. Drawn per sample, on the device, from a generator.

Holes are bool B×1×S×S, True where a pixel is dropped (the paper's M̂).

Source: Pathak et al. 2016, section 4.3 and figure 3.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

MaskKind = Literal["central", "random_block", "random_region"]

MEAN_COLOUR = (117 / 255, 104 / 255, 123 / 255)
"""Fills a hole: the mean colour of ImageNet, as the authors' released code has it."""
LARGEST_SHARE = 0.25
"""Of a picture that random blocks cover at most."""
BLOCKS = 8
"""Random blocks that are tried; one that would cover too much is left out."""
BLOCK_SIDES = (1 / 6, 1 / 3)
"""Smallest and largest side of a random block, in shares of the picture's."""
CELLS = 7.68
"""Noise cells across a picture: the released code's 0.06 a pixel, at its 128 pixels."""
THRESHOLD = 0.25
"""Level of the noise field below which a pixel belongs to a region."""
REGION_SHARE = (0.2, 0.3)
"""Of a picture that a random region covers."""
FIELD = 12
"""Side of the noise field that regions are cut from, in pictures."""


def draw_holes(kind: MaskKind, count: int, size: int, generator: torch.Generator) -> Bool[Tensor, "B 1 S S"]:
    """Return the holes of `count` pictures of side `size`, on the generator's device."""
    if kind == "central":
        return central(count, size, device=generator.device)
    if kind == "random_block":
        return random_block(count, size, generator)
    return random_region(count, size, generator)


def central(count: int, size: int, *, device: torch.device | str = "cpu") -> Bool[Tensor, "B 1 S S"]:
    """Return the central square of half the side, a quarter of the area."""
    holes = torch.zeros(count, 1, size, size, dtype=torch.bool, device=device)
    start, side = size // 4, size // 2
    holes[..., start : start + side, start : start + side] = True
    return holes


def random_block(count: int, size: int, generator: torch.Generator) -> Bool[Tensor, "B 1 S S"]:
    """Return several blocks a picture, possibly overlapping, that cover at most a quarter of it in all."""
    low, high = (max(1, round(share * size)) for share in BLOCK_SIDES)
    device = generator.device
    sides = torch.randint(low, high + 1, (2, BLOCKS, count, 1), generator=generator, device=device)
    places = torch.rand(2, BLOCKS, count, 1, generator=generator, device=device)
    starts = (places * (size - sides + 1)).long()
    pixels = torch.arange(size, device=device)
    rows, columns = ((pixels >= starts[i]) & (pixels < starts[i] + sides[i]) for i in (0, 1))
    holes = torch.zeros(count, size, size, dtype=torch.bool, device=device)
    for row, column in zip(rows, columns, strict=True):
        wider = holes | (row[:, :, None] & column[:, None, :])
        fits = wider.float().mean(dim=(1, 2)) <= LARGEST_SHARE
        holes = torch.where(fits[:, None, None], wider, holes)
    return holes[:, None]


def random_region(count: int, size: int, generator: torch.Generator) -> Bool[Tensor, "B 1 S S"]:
    """Return arbitrary shapes that cover 20 to 30 % of a picture.

    Deviations: as the authors' released code does it, a smooth random field is thresholded, in place of the paper's
    deformed segmentation masks; cells are in proportion to the picture, not to its pixels.
    """
    field, corners = (part.to(generator.device) for part in _field(size))
    chosen = torch.randint(len(corners), (count,), generator=generator, device=generator.device)
    top, left = corners[chosen].unbind(1)
    steps = torch.arange(size, device=generator.device)
    return field[(top[:, None] + steps)[:, :, None], (left[:, None] + steps)[:, None, :]][:, None]


@functools.lru_cache(maxsize=4)
def _field(size: int) -> tuple[Bool[Tensor, "F F"], Shaped[Tensor, "N 2"]]:
    """Return a thresholded field, the same for everyone, and the corners of its crops that cover enough."""
    cells = round(FIELD * CELLS)
    noise = torch.rand(1, 1, cells, cells, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(noise, size=FIELD * size, mode="bicubic", align_corners=False)
    field = smooth[0, 0] < THRESHOLD
    # float64, since a running sum of 32 bits is not exact beyond 16 million pixels
    total = F.pad(field.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    share = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    share /= size * size
    corners = ((share >= REGION_SHARE[0]) & (share <= REGION_SHARE[1])).nonzero()
    return field, corners


def fill(images: Float[Tensor, "B 3 S S"], holes: Bool[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Return pictures in [0, 1] with their holes in the mean colour."""
    colour = torch.tensor(MEAN_COLOUR, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    return torch.where(holes, colour, images)
