"""Holes filled without any training: what a decoder has to beat."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


def fill_mean_colour(images: UInt8[Tensor, "B 3 S S"], holes: Bool[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Fill with the mean colour of what is visible of the same picture."""
    visible = (~holes).float()
    values = images.float() / 255
    mean = (values * visible).sum(dim=(2, 3), keepdim=True) / visible.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return torch.where(holes, mean, values)


def fill_interpolated(images: UInt8[Tensor, "B 3 S S"], holes: Bool[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Fill linearly from the border: each pixel from the nearest visible ones left, right, above and below.

    They are weighted by one over their distance; along one axis that is linear interpolation. A pixel that
    sees none in any of the four directions takes the picture's mean colour.
    """
    values = images.float() / 255
    total, weights = torch.zeros_like(values), torch.zeros_like(values[:, :1])
    for axis, backwards in ((3, False), (3, True), (2, False), (2, True)):
        nearest, distance = _nearest_visible(values, holes, axis, backwards)
        weight = torch.where(distance > 0, 1 / distance.clamp(min=1), 0)
        total, weights = total + weight * nearest, weights + weight
    blended = torch.where(weights > 0, total / weights.clamp(min=1e-12), fill_mean_colour(images, holes))
    return torch.where(holes, blended, values)


def _nearest_visible(values: Tensor, holes: Tensor, axis: int, backwards: bool) -> tuple[Tensor, Tensor]:
    """Return the last visible pixel before each along an axis, and how far it is; 0 where there is none."""
    if backwards:
        nearest, distance = _nearest_visible(values.flip(axis), holes.flip(axis), axis, False)
        return nearest.flip(axis), distance.flip(axis)
    shape = [1, 1, 1, 1]
    shape[axis] = values.shape[axis]
    steps = torch.arange(values.shape[axis]).view(shape).expand_as(holes)
    last = torch.where(holes, -1, steps).cummax(dim=axis).values
    nearest = values.gather(axis, last.clamp(min=0).expand_as(values))
    return nearest, torch.where(last >= 0, steps - last, 0).float()


BASELINES = {"mean colour": fill_mean_colour, "interpolated": fill_interpolated}
"""By the name that a table has for it."""
