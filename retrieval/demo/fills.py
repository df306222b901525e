"""A hole in a picture as every method at hand fills it, for the page to search with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from pretext.datasets.decoding import resize
from pretext.inpainting.measuring import HoledPictures, baseline_fills, filled_by
from pretext.tasks.base import Inpainter
from retrieval.filling import by_hog, fill_from, nearest_rows
from retrieval.regions import Box
from retrieval.searcher import Searchable

SHOWN_SIDE = 480
"""Longest side in pixels at which pictures are sent to the page."""
HOG_PICTURES, HOG_SIDE = 500, 64
"""Pictures that are looked through by their gradients, and their side in pixels, at most: half a second."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """One index as the page sees it."""

    name: str
    searchable: Searchable
    decoder: Inpainter | None


def fills_of(
    shown: list[Shown], image: UInt8[Tensor, "3 H W"], own: Searchable | None, number: int | None, box: Box
) -> dict[str, UInt8[Tensor, "3 h w"]]:
    """Return the picture with its hole as every method at hand fills it, each at the size that it works at."""
    fills: dict[str, Tensor] = {}
    for each in shown:
        searchable, manifest = each.searchable, each.searchable.index.manifest
        if not searchable.takes_holes:
            continue
        pictures = _with_hole(image, manifest.picture_size, box)
        without = own_number(searchable, own, number)
        _, nearest = searchable.ask(pictures.images[0], box, 1, hidden=True, without_image=without)
        if not len(nearest):  # the index holds this picture alone
            continue
        line = searchable.index.table[nearest[0]]
        source = searchable.data[int(line["image"])][0]
        if manifest.regions.mode == "contexts":  # what it hides, brought to where the hole is
            source = _moved(part_of(source, box_of(line)), pictures.holes[0, 0])
        fills[f"nearest by {each.name}"] = fill_from(pictures, source[None])[0]
    first = shown[0].searchable
    if (found := _nearest_by_hog(first, image, box, own_number(first, own, number))) is not None:
        pictures = _with_hole(image, first.index.manifest.picture_size, box)
        fills["nearest by HOG"] = fill_from(pictures, first.data[found][0][None])[0]
    painted: dict[str, Path] = {}
    for each in shown:
        if each.decoder is not None:
            pictures = _with_hole(image, each.decoder.encoder.input_size, box)
            encoder = Path(each.searchable.index.manifest.encoder)
            task = each.searchable.encoder.record.get("task", "its decoder")
            name = f"painted by {task}"
            if painted.setdefault(name, encoder) != encoder:  # another run of the same task
                name += f", {encoder.parent.name}"
            fills[name] = filled_by(each.decoder, pictures)[0]
    pictures = _with_hole(image, max(each.searchable.index.manifest.picture_size for each in shown), box)
    fills |= {name: filled[0] for name, filled in baseline_fills(pictures).items()}
    small = _fitted(image)
    return {name: _pasted(small, filled, box) for name, filled in fills.items()} | {"as it was": small}


def own_number(searchable: Searchable, own: Searchable | None, number: int | None) -> int | None:
    """Return the number in an index of the picture that is asked with; None where it is none of the index's.

    Args:
        searchable: The index that is asked.
        own: The one that the picture was chosen from; None for an upload.
        number: The picture's number there.
    """
    return number if own is not None and own.data.fingerprint == searchable.data.fingerprint else None


def _nearest_by_hog(searchable: Searchable, image: UInt8[Tensor, "3 H W"], box: Box, without: int | None) -> int | None:
    """Return the number of the picture whose gradients around the hole are the most alike; None if there is no other.

    At most `HOG_PICTURES` are looked through, evenly spaced: each is described anew for every hole.
    """
    numbers = np.unique(searchable.index.table["image"])
    numbers = numbers[numbers != without] if without is not None else numbers
    if not len(numbers):
        return None
    numbers = numbers[np.linspace(0, len(numbers) - 1, min(HOG_PICTURES, len(numbers))).astype(int)]
    side = min(HOG_SIDE, searchable.index.manifest.picture_size)
    pictures = torch.stack([resize(searchable.data[int(number)][0], {}, side)[0] for number in numbers])
    asked = _with_hole(image, side, box)
    holes = asked.holes.expand(len(pictures), -1, -1, -1)
    return int(numbers[nearest_rows(by_hog(asked), by_hog(HoledPictures(pictures, holes)))[0]])


def _pasted(image: UInt8[Tensor, "3 h w"], filled: Float[Tensor, "3 S S"], box: Box) -> UInt8[Tensor, "3 h w"]:
    """Return the picture, and in its hole what a method shows there, brought to the picture's size."""
    there = _hole(image.shape[1], image.shape[2], box)
    size = (image.shape[1], image.shape[2])
    grown = torch.nn.functional.interpolate(filled[None], size, mode="bilinear", antialias=True)[0]
    return torch.where(there, (grown * 255).round().clamp(0, 255).to(torch.uint8), image)


def _fitted(image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 h w"]:
    """Return the picture, smaller where it is larger than the page shows it."""
    shrunk = min(1.0, SHOWN_SIDE / max(image.shape[1:]))
    height, width = (max(1, round(side * shrunk)) for side in image.shape[1:])
    return TF.resize(image, [height, width], antialias=True)


def _hole(height: int, width: int, box: Box) -> Bool[Tensor, "H W"]:
    """Return where the box is in a picture of so many pixels: one at least."""
    x, y, w, h = box
    top, left = int(y * height), int(x * width)
    hole = torch.zeros(height, width, dtype=torch.bool)
    hole[top : max(top + 1, round((y + h) * height)), left : max(left + 1, round((x + w) * width))] = True
    return hole


def _with_hole(image: UInt8[Tensor, "3 H W"], side: int, box: Box) -> HoledPictures:
    return HoledPictures(resize(image, {}, side)[0][None], _hole(side, side, box)[None, None])


def _moved(part: UInt8[Tensor, "3 H W"], hole: Tensor) -> UInt8[Tensor, "3 S S"]:
    """Return a picture that shows the part where the hole is, and its edge around."""
    rows, columns = (hole.any(dim=axis).nonzero().flatten() for axis in (1, 0))
    size = (len(rows), len(columns))
    fitted = torch.nn.functional.interpolate(part[None].float(), size, mode="bilinear", antialias=True)
    top, left = int(rows[0]), int(columns[0])
    around = (left, hole.shape[1] - left - size[1], top, hole.shape[0] - top - size[0])
    # its edge goes on outside, so that it is no edge to blend in
    return torch.nn.functional.pad(fitted, around, mode="replicate")[0].round().to(torch.uint8)


def part_of(image: UInt8[Tensor, "3 H W"], box: Box) -> UInt8[Tensor, "3 h w"]:
    """Return what a box in shares of the picture shows of it, at least a pixel; what lies outside is left away."""
    height, width = image.shape[1:]
    x, y, w, h = box
    left, top = min(max(0, int(x * width)), width - 1), min(max(0, int(y * height)), height - 1)
    right, bottom = max(left + 1, round((x + w) * width)), max(top + 1, round((y + h) * height))
    return image[:, top:bottom, left:right]


def box_of(row: Any) -> Box:
    """Return the box of a row of the patch table."""
    return float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"])
