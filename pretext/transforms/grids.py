"""Tiles of a 3×3 grid on each picture, for the tasks that ask where a tile was.

The grid is put somewhere on the picture, and every tile somewhere in its cell. All tiles start on whole pixels
and have the same whole number of them: enlarging treats them all alike, so that interpolation says nothing
about where a tile was. Nothing loops over pictures, and all that is random comes from the generator.

Source: Doersch, Gupta and Efros 2015, arXiv 1505.05192, section 3.1 (gap, jitter); Noroozi and Favaro 2016,
    arXiv 1603.09246, section 3 (cells of 75 px, tiles of 64 px anywhere in them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from pretext.encoders.base import Encoder, deepest_shape

SIDE = 3
TILES = SIDE * SIDE
SMALLEST = 4
"""Pixels of the picture along a tile's side below which it shows nothing."""


@dataclass(frozen=True)
class Grid:
    """Where tiles lie, and how an encoder reads them."""

    span: float = 0.9
    """Share of the picture's side that the grid covers; it lies at a random place."""
    gap: float = 1 / 3
    """Mean gap between neighbouring tiles, as a share of a cell's side."""
    jitter: float = 1.0
    """Share of a cell's free room that its tile moves in: 0 is always the middle, 1 anywhere in the cell."""
    tile: int | None = None
    """Side in pixels at which the encoder reads a tile; half of its own input size where it is None."""
    head_width: float = 0.125
    """Multiplies the published widths of the layers behind the encoder."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.span <= 1:
            raise ValueError(f"span is {self.span}; allowed is from 0.1 to 1")
        if not 0 <= self.gap <= 0.9:
            raise ValueError(f"gap is {self.gap}; allowed is from 0 to 0.9")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is {self.jitter}; allowed is from 0 to 1")
        if self.tile is not None and not 1 <= self.tile <= 4096:
            raise ValueError(f"tile is {self.tile}; allowed is from 1 to 4096 pixels")
        if not 0.001 <= self.head_width <= 8:
            raise ValueError(f"head_width is {self.head_width}; allowed is from 0.001 to 8")


class Layout(NamedTuple):
    """A grid in whole pixels: sides of a cell and a tile, and the first and last offset of a tile in its cell."""

    cell: int
    side: int
    first: int
    last: int


def layout(size: int, grid: Grid, *, margin: int = 0) -> Layout:
    """Return a grid's pixels on pictures of side `size`.

    Args:
        size: Pixels.
        grid: The settings.
        margin: Pixels of its cell that every tile leaves on all sides.
    """
    cell = int(size * grid.span + 1e-6) // SIDE
    side = min(round(cell * (1 - grid.gap)), cell - 2 * margin)
    free = cell - side - 2 * margin
    first = margin + int(free * (1 - grid.jitter) / 2 + 1e-6)
    return Layout(cell, side, first, cell - side - first)


def draw_places(
    count: int, size: int, where: Layout, generator: torch.Generator, device: torch.device
) -> Int[Tensor, "B 9 2"]:
    """Return each tile's uppermost row and leftmost column, in reading order of the cells."""
    corner = torch.randint(size - SIDE * where.cell + 1, (count, 1, 2), generator=generator, device=device)
    offset = torch.randint(where.first, where.last + 1, (count, TILES, 2), generator=generator, device=device)
    cells = torch.arange(TILES, device=device)
    return corner + where.cell * torch.stack([cells // SIDE, cells % SIDE], dim=1) + offset


def cut(
    images: Shaped[Tensor, "B C S S"], places: Int[Tensor, "B 9 #C 2"], *, side: int, size: int
) -> Float[Tensor, "B 9 C T T"]:
    """Return tiles as float, resized bilinearly; uint8 is brought to [0, 1].

    Args:
        images: Pictures.
        places: Uppermost row and leftmost column of each tile, one for all channels or one for each.
        side: Pixels of the picture along a tile's side.
        size: T.
    """
    B, C = images.shape[:2]
    along = torch.arange(side, device=images.device)
    rows = (places[..., 0, None] + along)[..., :, None]
    columns = (places[..., 1, None] + along)[..., None, :]
    picture = torch.arange(B, device=images.device).view(-1, 1, 1, 1, 1)
    channel = torch.arange(C, device=images.device).view(1, 1, -1, 1, 1)
    tiles = images[picture, channel, rows, columns]
    tiles = tiles.float() / 255 if tiles.dtype == torch.uint8 else tiles.float()
    if size != side:
        tiles = F.interpolate(tiles.flatten(0, 1), size=(size, size), mode="bilinear", antialias=size < side)
    return tiles.view(B, TILES, C, size, size)


def tile_size(encoder: Encoder, grid: Grid, *, margin: int = 0) -> int:
    """Return the side at which an encoder reads tiles, after looking whether it can.

    Raises:
        ValueError: If tiles have too few pixels of the picture, or the encoder gives no map of one.
    """
    side = layout(encoder.input_size, grid, margin=margin).side
    if side < SMALLEST:
        raise ValueError(
            f"tiles show only {max(side, 0)} of {encoder.input_size} px; take a smaller gap, a larger span or size"
        )
    size = grid.tile or encoder.input_size // 2
    _shape_of_a_tile(encoder, size)
    return size


def tile_layer(encoder: Encoder, size: int, width: int) -> nn.Sequential:
    """Return the first fully connected layer, which reads the deepest map of one tile with its places (fc6)."""
    length = math.prod(_shape_of_a_tile(encoder, size))
    return nn.Sequential(nn.Flatten(), nn.Linear(length, width), nn.ReLU(inplace=True))


def sheet(tiles: Float[Tensor, "B 9 3 T T"], size: int) -> Float[Tensor, "B 3 S S"]:
    """Return nine tiles in reading order as one picture, framed, in [0, 1]."""
    B, _, C, T, _ = tiles.shape
    framed = F.pad(tiles.float().clamp(0, 1), (1, 1, 1, 1), value=1.0).view(B, SIDE, SIDE, C, T + 2, T + 2)
    whole = framed.permute(0, 3, 1, 4, 2, 5).reshape(B, C, SIDE * (T + 2), SIDE * (T + 2))
    return F.interpolate(whole, size=(size, size), mode="bilinear", antialias=True).clamp(0, 1)


def _shape_of_a_tile(encoder: Encoder, size: int) -> tuple[int, int, int]:
    try:
        found = deepest_shape(encoder, size)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"{encoder.spec} gives no map of a tile of {size} px; say tile={encoder.input_size}, which it reads"
        ) from error
    if not math.prod(found):
        raise ValueError(f"{encoder.spec} leaves nothing of a tile of {size} px; say tile={encoder.input_size}")
    return found
