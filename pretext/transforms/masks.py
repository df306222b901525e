"""Holes for inpainting: the pixels removed from each image, drawn on the device from a generator.

Holes are boolean tensors B×1×S×S, True where a pixel is removed (M̂ in the paper). To add a kind of mask, extend
`MaskKind` and `draw_holes`.

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
"""Colour of a hole, as in the authors' released code. ImageNet's mean is (123, 117, 104): there, channels changed
places."""
MAX_BLOCK_AREA = 0.25
"""Largest fraction of the image that random blocks cover."""
BLOCKS = 8
"""Random blocks drawn per image; a block that would exceed `MAX_BLOCK_AREA` is dropped."""
BLOCK_SIDES = (1 / 6, 1 / 3)
"""Smallest and largest side of a random block, as fractions of the image side."""
NOISE_CELLS = 7.68
"""Noise cells across an image: 0.06 per pixel at 128 px, as in the released code."""
THRESHOLD = 0.25
"""Pixels of the noise field below this level belong to a region."""
REGION_AREA = (0.2, 0.3)
"""Smallest and largest fraction of the image that a random region covers."""
FIELD_SIDE = 12
"""Side of the noise field that regions are cropped from, in image sides."""


def draw_holes(kind: MaskKind, count: int, size: int, generator: torch.Generator) -> Bool[Tensor, "B 1 S S"]:
    """Return random holes on the generator's device.

    Args:
        kind: Shape of the holes; `central` draws nothing from the generator.
        count: B, number of images.
        size: S, side of the images in pixels.
        generator: Random generator.
    """
    if kind == "central":
        return central(count, size, device=generator.device)
    if kind == "random_block":
        return random_block(count, size, generator)
    return random_region(count, size, generator)


def central(count: int, size: int, *, device: torch.device | str = "cpu") -> Bool[Tensor, "B 1 S S"]:
    """Return central square holes of half the image side, a quarter of the area."""
    holes = torch.zeros(count, 1, size, size, dtype=torch.bool, device=device)
    start, side = size // 4, size // 2
    holes[..., start : start + side, start : start + side] = True
    return holes


def central_like(holes: Bool[Tensor, "B 1 S S"]) -> Bool[Tensor, "B 1 S S"]:
    """Return central holes for as many images of the same size."""
    return central(len(holes), holes.shape[-1], device=holes.device)


def random_block(count: int, size: int, generator: torch.Generator) -> Bool[Tensor, "B 1 S S"]:
    """Return holes of several blocks per image, which may overlap and cover at most a quarter of it."""
    low, high = (max(1, round(fraction * size)) for fraction in BLOCK_SIDES)
    device = generator.device
    sides = torch.randint(low, high + 1, (2, BLOCKS, count, 1), generator=generator, device=device)
    places = torch.rand(2, BLOCKS, count, 1, generator=generator, device=device)
    starts = (places * (size - sides + 1)).long()
    pixels = torch.arange(size, device=device)
    rows, columns = ((pixels >= starts[i]) & (pixels < starts[i] + sides[i]) for i in (0, 1))
    holes = torch.zeros(count, size, size, dtype=torch.bool, device=device)
    for row, column in zip(rows, columns, strict=True):
        wider = holes | (row[:, :, None] & column[:, None, :])
        fits = wider.float().mean(dim=(1, 2)) <= MAX_BLOCK_AREA
        holes = torch.where(fits[:, None, None], wider, holes)
    return holes[:, None]


def random_region(count: int, size: int, generator: torch.Generator) -> Bool[Tensor, "B 1 S S"]:
    """Return holes of arbitrary shape that cover 20 to 30 % of an image.

    Deviations: shapes are a thresholded smooth random field, as in the authors' released code; the paper uses
    deformed segmentation masks. The cells of the field scale with the image; the released code fixes them in pixels.
    """
    field, corners = (tensor.to(generator.device) for tensor in _region_field(size))
    chosen = torch.randint(len(corners), (count,), generator=generator, device=generator.device)
    top, left = corners[chosen].unbind(1)
    steps = torch.arange(size, device=generator.device)
    return field[(top[:, None] + steps)[:, :, None], (left[:, None] + steps)[:, None, :]][:, None]


@functools.lru_cache(maxsize=4)
def _region_field(size: int) -> tuple[Bool[Tensor, "F F"], Shaped[Tensor, "N 2"]]:
    """Return the thresholded noise field, from a fixed seed, and the corners of crops of a valid area."""
    cells = round(FIELD_SIDE * NOISE_CELLS)
    noise = torch.rand(1, 1, cells, cells, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(noise, size=FIELD_SIDE * size, mode="bicubic", align_corners=False)
    field = smooth[0, 0] < THRESHOLD
    # float64: running sums in float32 are inexact above 16 million pixels
    total = F.pad(field.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    area = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    area /= size * size
    corners = ((area >= REGION_AREA[0]) & (area <= REGION_AREA[1])).nonzero()
    return field, corners


def fill(images: Float[Tensor, "B 3 S S"], holes: Bool[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Fill the holes of images in [0, 1] with the mean colour."""
    colour = torch.tensor(MEAN_COLOUR, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    return torch.where(holes, colour, images)


def dilated(holes: Bool[Tensor, "B 1 S S"], pixels: int) -> Bool[Tensor, "B 1 S S"]:
    """Return the holes with a band of `pixels` around them, within the image; `pixels` to each side and corner.

    Source: Pathak et al. 2016, section 5.1 (the prediction overlaps the context by a few pixels).
    """
    if not pixels:
        return holes
    columns = F.max_pool2d(holes.float(), (2 * pixels + 1, 1), stride=1, padding=(pixels, 0))
    return F.max_pool2d(columns, (1, 2 * pixels + 1), stride=1, padding=(0, pixels)) > 0


def eroded(holes: Bool[Tensor, "B 1 S S"], pixels: int) -> Bool[Tensor, "B 1 S S"]:
    """Return the holes without a band of `pixels` along the inside of their edges."""
    return ~dilated(~holes, pixels)


def spread(images: Float[Tensor, "B 3 S S"], holes: Bool[Tensor, "B 1 S S"], pixels: int) -> Float[Tensor, "B 3 S S"]:
    """Return the images with a band of `pixels` along the inside of the holes' edges filled from outside.

    Pixel by pixel from the edge, each is the mean of its neighbours that are known by then.
    """
    known = (~holes).to(images.dtype)
    images = images * known
    for _ in range(pixels):
        count = F.avg_pool2d(known, 3, stride=1, padding=1)
        mean = F.avg_pool2d(images, 3, stride=1, padding=1) / count.clamp(min=1e-6)
        images = torch.where(known > 0, images, mean)
        known = (count > 1e-6).to(images.dtype)
    return images
