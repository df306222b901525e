"""Tiles of a 3×3 grid on each image, for the tasks that predict the position of tiles.

The grid has a random position on the image, and every tile a random position in its cell. All tiles start on whole
pixels and have the same size in pixels. Resizing therefore treats all tiles alike, and its artefacts do not reveal a
tile's position. No code loops over images, and all random numbers come from the given generator.

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
from pretext.system.ranges import check_range

SIDE = 3
TILES = SIDE * SIDE
SMALLEST = 4
"""Smallest tile side, in pixels of the image."""


@dataclass(frozen=True)
class Grid:
    """Settings of the grid, the tiles and the head."""

    span: float = 0.9
    """Side of the grid, as a fraction of the image side; its position is random."""
    gap: float = 1 / 3
    """Mean gap between neighbouring tiles, as a fraction of a cell's side."""
    jitter: float = 1.0
    """Random shift of tiles: 0 keeps each in the middle of its cell, 1 allows any position in the cell."""
    tile: int | None = None
    """Side in pixels to which tiles are resized for the encoder; None is half of its input size."""
    head_width: float = 0.125
    """Multiplies the published widths of the head's layers."""

    def __post_init__(self) -> None:
        check_range(self, "span", least=0.1, most=1)
        check_range(self, "gap", least=0, most=0.9)
        check_range(self, "jitter", least=0, most=1)
        check_range(self, "tile", least=1, most=4096, unit="pixels")
        check_range(self, "head_width", least=0.001, most=8)


class Layout(NamedTuple):
    """A grid in whole pixels."""

    cell: int
    """Side of a cell."""
    side: int
    """Side of a tile."""
    first: int
    """Smallest offset of a tile in its cell."""
    last: int
    """Largest offset of a tile in its cell."""


def layout(size: int, grid: Grid, *, margin: int = 0) -> Layout:
    """Return the grid in pixels.

    Args:
        size: Side of the images in pixels.
        grid: The settings.
        margin: Pixels between a tile and the border of its cell, at least.
    """
    cell = int(size * grid.span + 1e-6) // SIDE
    side = min(round(cell * (1 - grid.gap)), cell - 2 * margin)
    free = cell - side - 2 * margin
    first = margin + int(free * (1 - grid.jitter) / 2 + 1e-6)
    return Layout(cell, side, first, cell - side - first)


def draw_places(
    count: int, size: int, where: Layout, generator: torch.Generator, device: torch.device
) -> Int[Tensor, "B 9 2"]:
    """Return the top row and left column of each tile, with cells in reading order.

    Args:
        count: Number of images.
        size: Side of the images in pixels.
        where: The grid in pixels.
        generator: Random generator.
        device: Device of the generator.
    """
    corner = torch.randint(size - SIDE * where.cell + 1, (count, 1, 2), generator=generator, device=device)
    offset = torch.randint(where.first, where.last + 1, (count, TILES, 2), generator=generator, device=device)
    cells = torch.arange(TILES, device=device)
    return corner + where.cell * torch.stack([cells // SIDE, cells % SIDE], dim=1) + offset


def cut_tiles(
    images: Shaped[Tensor, "B C S S"], places: Int[Tensor, "B 9 #C 2"], *, side: int, size: int
) -> Float[Tensor, "B 9 C T T"]:
    """Return the tiles as float, resized bilinearly; uint8 images are scaled to [0, 1].

    Args:
        images: The images.
        places: Top row and left column of each tile, shared by all channels or one per channel.
        side: Side of a tile in pixels of the image.
        size: T, side of the resized tiles in pixels.
    """
    B, C = images.shape[:2]
    offsets = torch.arange(side, device=images.device)
    rows = (places[..., 0, None] + offsets)[..., :, None]
    columns = (places[..., 1, None] + offsets)[..., None, :]
    image = torch.arange(B, device=images.device).view(-1, 1, 1, 1, 1)
    channel = torch.arange(C, device=images.device).view(1, 1, -1, 1, 1)
    tiles = images[image, channel, rows, columns]
    tiles = tiles.float() / 255 if tiles.dtype == torch.uint8 else tiles.float()
    if size != side:
        tiles = F.interpolate(tiles.flatten(0, 1), size=(size, size), mode="bilinear", antialias=size < side)
    return tiles.view(B, TILES, C, size, size)


def tiles_at(
    images: Shaped[Tensor, "B C Z Z"], planned: int, places: Int[Tensor, "B 9 #C 2"], *, side: int, size: int
) -> Float[Tensor, "B 9 C T T"]:
    """Return the tiles of images that may be larger than those for which the places were drawn; see `cut_tiles`.

    Args:
        images: The images; their side is a multiple of `planned`.
        planned: Side in pixels of the images for which `places` and `side` are meant.
        places: See `cut_tiles`.
        side: Side of a tile in pixels of the planned images.
        size: T, side of the resized tiles in pixels.
    """
    times = images.shape[-1] // planned
    return cut_tiles(images, times * places, side=times * side, size=size)


def tile_size(encoder: Encoder, grid: Grid, *, margin: int = 0) -> int:
    """Return the side in pixels to which tiles are resized for an encoder.

    Args:
        encoder: Reads the tiles; checked by running it on a blank one.
        grid: The settings.
        margin: See `layout`.

    Raises:
        ValueError: If tiles have too few image pixels, or the encoder cannot read tiles of this side.
    """
    side = layout(encoder.input_size, grid, margin=margin).side
    if side < SMALLEST:
        raise ValueError(
            f"tiles show only {max(side, 0)} of {encoder.input_size} px; give a smaller gap, larger span or image"
        )
    size = grid.tile or encoder.input_size // 2
    _tile_shape(encoder, size)
    return size


def tile_layer(encoder: Encoder, size: int, width: int) -> nn.Sequential:
    """Return the first fully connected layer (fc6), on the flattened deepest map of one tile.

    Args:
        encoder: Reads the tiles.
        size: Side of the resized tiles in pixels.
        width: Outputs of the layer.
    """
    length = math.prod(_tile_shape(encoder, size))
    return nn.Sequential(nn.Flatten(), nn.Linear(length, width), nn.ReLU(inplace=True))


def sheet(tiles: Float[Tensor, "B 9 3 T T"], size: int) -> Float[Tensor, "B 3 S S"]:
    """Return one image per nine tiles, in reading order with white frames, in [0, 1]."""
    B, _, C, T, _ = tiles.shape
    framed = F.pad(tiles.float().clamp(0, 1), (1, 1, 1, 1), value=1.0).view(B, SIDE, SIDE, C, T + 2, T + 2)
    whole = framed.permute(0, 3, 1, 4, 2, 5).reshape(B, C, SIDE * (T + 2), SIDE * (T + 2))
    return F.interpolate(whole, size=(size, size), mode="bilinear", antialias=True).clamp(0, 1)


def _tile_shape(encoder: Encoder, size: int) -> tuple[int, int, int]:
    """Return the shape of the deepest map of one tile."""
    try:
        shape = deepest_shape(encoder, size)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(f"{encoder.spec} cannot read a tile of {size} px; give tile={encoder.input_size}") from error
    if not math.prod(shape):
        raise ValueError(f"{encoder.spec} has an empty map for a tile of {size} px; give tile={encoder.input_size}")
    return shape
