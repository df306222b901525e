"""Fill a hole with every available method, for the search page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from pretext.datasets.base import BadImage
from pretext.datasets.fitting import resize
from pretext.inpainting.measuring import HoledPictures, baseline_fills, filled_by
from pretext.tasks.base import Inpainter
from retrieval.filling import by_hog, fill_from
from retrieval.originals import original
from retrieval.regions import Box
from retrieval.searcher import Searchable

SHOWN_SIDE = 480
"""Longest side in pixels of pictures sent to the page."""
PASTED_SIDE = 192
"""Side in pixels at which the nearest picture is blended in, if the query has as many; blending takes 0.1 s then."""
NEAREST = 8
"""Number of neighbours of which the first other picture fills the hole."""
SAME = 4.0
"""Largest mean difference of two copies of a picture, out of 255: they may be decoded at different sizes."""
BY_HOG = "nearest by HOG"
HOG_PICTURES, HOG_SIDE = 500, 64
"""Maximum number of pictures compared by HOG, and their maximum side in pixels; takes about half a second."""


@dataclasses.dataclass(frozen=True)
class ShownIndex:
    """One index on the page."""

    name: str
    """Unique name of the encoder and stage."""
    searchable: Searchable
    decoder: Inpainter | None
    """The training run's own decoder, if it has one."""
    random_cosine: float
    """Mean cosine of two regions drawn at random from the index."""


def fill_by_all(
    shown: list[ShownIndex], image: UInt8[Tensor, "3 H W"], own: Searchable | None, number: int | None, box: Box
) -> dict[str, UInt8[Tensor, "3 h w"]]:
    """Return the picture with its hole filled by every available method, by the method's name.

    Each method sees the picture at its own size; what is pasted from another picture is not shrunk so far. No hole is
    filled from a copy of the picture itself, whichever index holds it.

    Args:
        shown: The indexes on the page.
        image: The query picture.
        own: The index that the picture comes from; None for an upload.
        number: The picture's number in that index.
        box: The hole.
    """
    fills: dict[str, Tensor] = {}
    for each in shown:
        searchable, manifest = each.searchable, each.searchable.index.manifest
        if not searchable.takes_holes:
            continue
        pictures = _with_hole(image, manifest.picture_size, box)
        without = own_number(searchable, own, number)
        _, nearest = searchable.search(pictures.images[0], box, NEAREST, hidden=True, without_image=without)
        rows = searchable.index.table[nearest]
        row = next((row for row in rows if not is_same(searchable, int(row["image"]), pictures.images[0])), None)
        if row is None:  # the index holds only this picture
            continue
        pasted = _with_hole(image, _pasted_side(image, manifest.picture_size), box)
        source = original(searchable.data, int(row["image"]))
        if manifest.regions.mode == "contexts":  # move its hidden centre to the hole
            source = _moved(crop(source, box_of(row)), pasted.holes[0, 0])
        fills[f"nearest by {each.name}"] = _pasted(pasted, source)
    first = shown[0].searchable
    if (
        BY_HOG not in fills
        and (found := _nearest_by_hog(first, image, box, own_number(first, own, number))) is not None
    ):
        pasted = _with_hole(image, _pasted_side(image, first.index.manifest.picture_size), box)
        fills[BY_HOG] = _pasted(pasted, original(first.data, found))
    decoded: dict[str, Path] = {}
    for each in shown:
        if each.decoder is not None:
            pictures = _with_hole(image, each.decoder.encoder.input_size, box)
            if not each.decoder.can_fill(pictures.holes):
                continue
            encoder = Path(each.searchable.index.manifest.encoder)
            task = each.searchable.encoder.record.get("task", "its decoder")
            name = f"decoded by {task}"
            if decoded.setdefault(name, encoder) != encoder:  # another run of the same task
                name += f", {encoder.parent.name}"
            fills[name] = filled_by(each.decoder, pictures)[0]
    pictures = _with_hole(image, max(each.searchable.index.manifest.picture_size for each in shown), box)
    fills |= {name: filled[0] for name, filled in baseline_fills(pictures).items()}
    small = _shrink(image)
    return {name: _paste_fill(small, filled, box) for name, filled in fills.items()} | {"original": small}


def own_number(searchable: Searchable, own: Searchable | None, number: int | None) -> int | None:
    """Return the query picture's number in an index; None if it comes from another one, which may hold copies of it.

    Args:
        searchable: The index to search.
        own: The index that the picture comes from; None for an upload.
        number: The picture's number in `own`.
    """
    return number if own is not None and own.data.fingerprint == searchable.data.fingerprint else None


def is_same(searchable: Searchable, number: int, query: UInt8[Tensor, "3 S S"]) -> bool:
    """Return whether a picture of the index is the query's: an upload, or one of an index of other splits."""
    try:
        return float((searchable.data[number][0].float() - query.float()).abs().mean()) < SAME
    except BadImage:
        return False


def _nearest_by_hog(searchable: Searchable, image: UInt8[Tensor, "3 H W"], box: Box, without: int | None) -> int | None:
    """Return the number of the other picture with the most similar HOG around the hole; None if there is none.

    At most `HOG_PICTURES`, evenly spaced, are compared, because HOG is computed anew for every hole.
    """
    numbers = np.unique(searchable.index.table["image"])
    numbers = numbers[numbers != without] if without is not None else numbers
    if not len(numbers):
        return None
    numbers = numbers[np.linspace(0, len(numbers) - 1, min(HOG_PICTURES, len(numbers))).astype(int)]
    side = min(HOG_SIDE, searchable.index.manifest.picture_size)
    pictures = torch.stack([resize(searchable.data[int(number)][0], {}, side)[0] for number in numbers])
    query = _with_hole(image, side, box)
    holes = query.holes.expand(len(pictures), -1, -1, -1)
    nearest = (by_hog(HoledPictures(pictures, holes)) @ by_hog(query)[0]).argsort(descending=True, stable=True)
    small = resize(image, {}, searchable.index.manifest.picture_size)[0]
    return next(
        (number for number in numbers[nearest[:NEAREST]].tolist() if not is_same(searchable, number, small)), None
    )


def _pasted_side(image: UInt8[Tensor, "3 H W"], picture_size: int) -> int:
    return max(picture_size, min(PASTED_SIDE, *image.shape[1:]))


def _pasted(pictures: HoledPictures, source: UInt8[Tensor, "3 H W"]) -> Float[Tensor, "3 S S"]:
    """Return the one picture with its hole filled from another one, of any size."""
    return fill_from(pictures, resize(source, {}, pictures.images.shape[-1])[0][None])[0]


def _paste_fill(image: UInt8[Tensor, "3 h w"], filled: Float[Tensor, "3 S S"], box: Box) -> UInt8[Tensor, "3 h w"]:
    """Return the picture with a method's fill, resized to it, pasted into the hole."""
    hole = _hole(image.shape[1], image.shape[2], box)
    size = (image.shape[1], image.shape[2])
    resized = torch.nn.functional.interpolate(filled[None], size, mode="bilinear", antialias=True)[0]
    return torch.where(hole, (resized * 255).round().clamp(0, 255).to(torch.uint8), image)


def _shrink(image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 h w"]:
    """Return the picture, shrunk to at most `SHOWN_SIDE`."""
    scale = min(1.0, SHOWN_SIDE / max(image.shape[1:]))
    height, width = (max(1, round(side * scale)) for side in image.shape[1:])
    return TF.resize(image, [height, width], antialias=True)


def _hole(height: int, width: int, box: Box) -> Bool[Tensor, "H W"]:
    """Return the mask of a box in a picture of H×W pixels, at least one pixel."""
    x, y, w, h = box
    top, left = int(y * height), int(x * width)
    hole = torch.zeros(height, width, dtype=torch.bool)
    hole[top : max(top + 1, round((y + h) * height)), left : max(left + 1, round((x + w) * width))] = True
    return hole


def _with_hole(image: UInt8[Tensor, "3 H W"], side: int, box: Box) -> HoledPictures:
    return HoledPictures(resize(image, {}, side)[0][None], _hole(side, side, box)[None, None])


def _moved(part: UInt8[Tensor, "3 H W"], hole: Tensor) -> UInt8[Tensor, "3 S S"]:
    """Return a picture with the part at the hole, and its border pixels repeated around it."""
    rows, columns = (hole.any(dim=axis).nonzero().flatten() for axis in (1, 0))
    size = (len(rows), len(columns))
    fitted = torch.nn.functional.interpolate(part[None].float(), size, mode="bilinear", antialias=True)
    top, left = int(rows[0]), int(columns[0])
    around = (left, hole.shape[1] - left - size[1], top, hole.shape[0] - top - size[0])
    # repeat the border, so that blending sees no edge there
    return torch.nn.functional.pad(fitted, around, mode="replicate")[0].round().to(torch.uint8)


def crop(image: UInt8[Tensor, "3 H W"], box: Box) -> UInt8[Tensor, "3 h w"]:
    """Return the part of a picture in a box, clipped to the picture, at least one pixel."""
    height, width = image.shape[1:]
    x, y, w, h = box
    left, top = min(max(0, int(x * width)), width - 1), min(max(0, int(y * height)), height - 1)
    right, bottom = max(left + 1, round((x + w) * width)), max(top + 1, round((y + h) * height))
    return image[:, top:bottom, left:right]


def box_of(row: Any) -> Box:
    """Return the box of a patch table's row."""
    return float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"])
