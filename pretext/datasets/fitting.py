"""Give pictures a size, together with their targets: squashed, cut, padded, or with their own shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pretext.datasets.base import IGNORE, Target

Fit = Literal["squash", "crop", "pad", "keep"]
"""How a picture gets its size:

squash  a square, whose sides are scaled each by itself
crop    the square in the centre; the longer side is cut; no boxes and masks
pad     a square around the whole picture, filled up with grey; masks ignore the margin
keep    the picture's own shape, never enlarged; no boxes and masks
"""
GREY = (124, 116, 104)
"""Colour of a margin: the mean of ImageNet, which an encoder's normalisation turns into about 0."""


def kept_annotations(annotations: frozenset[str], fit: Fit) -> frozenset[str]:
    """Return the annotations that stay when pictures are fitted to a size."""
    return annotations - {"boxes", "masks"} if fit in ("crop", "keep") else annotations


def fitted(image: UInt8[Tensor, "3 H W"], target: Target, size: int, fit: Fit) -> tuple[UInt8[Tensor, "3 _ _"], Target]:
    """Return picture and target at a size.

    Pixels are interpolated bilinearly with antialiasing, masks by nearest neighbour. Each annotation is scaled from its
    own canvas, so `image` may be decoded at a reduced size.

    Args:
        image: The picture.
        target: See `ImageDataset`.
        size: Side of the square in pixels; with "keep" the most pixels of the shorter side.
        fit: The way.
    """
    if fit == "squash":
        return resize(image, target, size)
    if fit == "pad":
        return pad(image, target, size)
    target = {name: value for name, value in target.items() if name not in ("boxes", "masks")}
    height, width = image.shape[1:]
    if fit == "crop":
        return resize(F.center_crop(image, [min(height, width)] * 2), target, size)
    share = size / min(height, width)
    if share < 1:
        image = _resized(image, (max(1, round(height * share)), max(1, round(width * share))))
    return image, target


def pad(image: UInt8[Tensor, "3 H W"], target: Target, size: int) -> tuple[UInt8[Tensor, "3 S S"], Target]:
    """Return picture and target in the centre of a size×size square, with their aspect ratio; see `fitted`."""
    top, left, *inner = padded_place(image.shape[1], image.shape[2], size)
    square = torch.tensor(GREY, dtype=torch.uint8).view(3, 1, 1).repeat(1, size, size)
    square[:, top : top + inner[0], left : left + inner[1]] = _resized(image, (inner[0], inner[1]))
    moved = dict(target)
    if "boxes" in target:
        boxes = F.resize(target["boxes"], inner) + torch.tensor([left, top, left, top])
        moved["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(size, size))
    if "masks" in target:
        mask = torch.full((size, size), IGNORE, dtype=torch.uint8)
        inside = _resized_mask(target["masks"], inner)
        mask[top : top + inner[0], left : left + inner[1]] = inside
        moved["masks"] = tv_tensors.Mask(mask)
    return square, moved


def padded_place(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width in pixels of a picture in the square that `pad` makes of it.

    Args:
        height: Height of the picture in pixels.
        width: Its width in pixels.
        size: Side of the square in pixels.
    """
    share = size / max(height, width)
    inner_height, inner_width = max(1, round(height * share)), max(1, round(width * share))
    return (size - inner_height) // 2, (size - inner_width) // 2, inner_height, inner_width


def resize(image: UInt8[Tensor, "3 H W"], target: Target, size: int) -> tuple[UInt8[Tensor, "3 S S"], Target]:
    """Return picture and target at size×size, without keeping the aspect ratio.

    Squashing keeps every object whole and the IoU of two boxes unchanged; CaffeNet's inputs were made this way. See
    `fitted`.
    """
    square = [size, size]
    moved = dict(target)
    if "boxes" in target:
        moved["boxes"] = F.resize(target["boxes"], square)
    if "masks" in target:
        moved["masks"] = tv_tensors.Mask(_resized_mask(target["masks"], square))
    return _resized(image, (size, size)).contiguous(), moved


def _resized_mask(mask: UInt8[Tensor, "H W"], size: Sequence[int]) -> UInt8[Tensor, "_ _"]:
    """Return the values at the centres of the new pixels; torchvision's resizing of a `Mask` takes their corners."""
    plain = mask.as_subclass(Tensor)[None]
    return F.resize(plain, [*size], interpolation=InterpolationMode.NEAREST_EXACT)[0]


def _resized(image: UInt8[Tensor, "3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "3 _ _"]:
    if image.shape[1:] == size:
        return image
    return F.resize(image, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)
