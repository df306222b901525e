"""Conversion between sRGB and CIE Lab (D65, 2°), batched and on any device, and the grid of displayable ab colours.

L is lightness, from 0 to 100. a runs from green to red and b from blue to yellow, each within about ±110.

Source: IEC 61966-2-1 (sRGB), CIE 15 (Lab).
"""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""Matrix from linear RGB (ITU-R BT.709 primaries) to XYZ."""
WHITE = (0.95047, 1.0, 1.08883)
"""XYZ of the white point D65."""
SHARE_OF_WHITE = torch.tensor(TO_XYZ, dtype=torch.float64) / torch.tensor(WHITE, dtype=torch.float64)[:, None]
LINEAR_BELOW = 0.008856
"""Fraction of white below which Lab replaces the cube root by 7.787 t + 16/116."""


def rgb_to_lab(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Return L, a and b of sRGB images in [0, 1]."""
    linear = torch.where(images > 0.04045, ((images.clamp(min=0) + 0.055) / 1.055) ** 2.4, images / 12.92)
    share = _mixed(linear, SHARE_OF_WHITE)
    curved = torch.where(share > LINEAR_BELOW, share.clamp(min=LINEAR_BELOW) ** (1 / 3), 7.787 * share + 16 / 116)
    x, y, z = curved.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Return sRGB images in [0, 1]; colours outside of sRGB are clipped."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    curved = torch.stack([y + a / 500, y, (y - b / 200).clamp(min=0)], dim=1)
    share = torch.where(curved > LINEAR_BELOW ** (1 / 3), curved**3, (curved - 16 / 116) / 7.787)
    linear = _mixed(share, torch.linalg.inv(SHARE_OF_WHITE)).clamp(min=0)
    bent = 1.055 * linear.clamp(min=0.003) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, bent, 12.92 * linear).clamp(max=1)


def grey(lightness: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Return grey sRGB images in [0, 1] of the given L, with a and b set to 0."""
    return lab_to_rgb(torch.cat([lightness, torch.zeros_like(lightness).expand(-1, 2, -1, -1)], dim=1))


@functools.cache
def gamut(step: int = 10) -> Float[Tensor, "Q 2"]:
    """Return the grid points (a, b) near the colours of sRGB; 313 points for a step of 10.

    A point is included if it or one of its eight neighbours lies in the convex hull of the (a, b) of all sRGB colours.
    Zhang et al. 2016 state no rule. This one gives their 313 points, and five near points to every colour.

    Args:
        step: Spacing of the grid, in units of a and b.
    """
    levels = torch.linspace(0, 1, 33, dtype=torch.float64)
    colours = torch.cartesian_prod(levels, levels, levels)
    colours = colours[(colours == 0).any(1) | (colours == 1).any(1)]  # the cube's surface encloses the rest
    ab = rgb_to_lab(colours.T.reshape(1, 3, -1, 1))[0, 1:, :, 0]
    angles = torch.arange(720, dtype=torch.float64) * (2 * math.pi / 720)
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)
    extent = (directions @ ab).amax(dim=1)  # a point is in the hull if its projections stay within the extents
    side = torch.arange(-(150 // step), 150 // step + 1) * step
    points = torch.cartesian_prod(side, side).double()
    inside = (points @ directions.T <= extent).all(dim=1).view(len(side), len(side))
    near = torch.nn.functional.max_pool2d(inside[None, None].double(), 3, stride=1, padding=1) > 0
    return points[near.flatten()].float()


def _mixed(images: Float[Tensor, "B 3 H W"], matrix: Tensor) -> Float[Tensor, "B 3 H W"]:
    """Multiply every pixel by a 3×3 matrix, outside of autocast: half precision would round colours."""
    with torch.autocast(images.device.type, enabled=False):
        return (matrix.to(images.dtype).to(images.device) @ images.flatten(2)).view_as(images)
