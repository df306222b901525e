"""Hole filling without training: the baselines that a decoder has to beat."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


def fill_mean_colour(images: UInt8[Tensor, "B 3 S S"], holes: Bool[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Fill each hole with the mean colour of the visible pixels of its image."""
    visible = (~holes).float()
    values = images.float() / 255
    mean = (values * visible).sum(dim=(2, 3), keepdim=True) / visible.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return torch.where(holes, mean, values)


def fill_interpolated(images: UInt8[Tensor, "B 3 S S"], holes: Bool[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Fill each hidden pixel from the nearest visible pixels to its left and right, above and below.

    The four pixels are weighted by the inverse of their distance; along a single axis this is linear interpolation.
    A pixel with no visible pixel in any of the four directions takes the mean colour of the image.
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
    """Return, for every pixel, the last visible pixel before it along an axis, and its distance; 0 if there is none."""
    if backwards:
        nearest, distance = _nearest_visible(values.flip(axis), holes.flip(axis), axis, False)
        return nearest.flip(axis), distance.flip(axis)
    shape = [1, 1, 1, 1]
    shape[axis] = values.shape[axis]
    positions = torch.arange(values.shape[axis]).view(shape).expand_as(holes)
    last = torch.where(holes, -1, positions).cummax(dim=axis).values
    nearest = values.gather(axis, last.clamp(min=0).expand_as(values))
    return nearest, torch.where(last >= 0, positions - last, 0).float()


BASELINES = {"mean colour": fill_mean_colour, "interpolated": fill_interpolated}
"""The baselines by the name that tables show."""
