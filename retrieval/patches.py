"""From pictures to vectors: regions of pictures, cut out, encoded, pooled and normalised.

A window that reaches beyond its picture sees the mean colour there, the same as in a hole. Pictures are read
one by one and regions encoded in batches, so that memory grows with the vectors alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.packed import BadImages
from pretext.encoders.base import Encoder, evaluating
from pretext.system.errors import UserError, did_you_mean
from pretext.transforms.masks import MEAN_COLOUR
from retrieval.regions import Box, Regions, boxes_of, expand, patch_rows

BATCH = 128
"""Regions that are cut and encoded at a time."""


def cut(
    pictures: UInt8[Tensor, "P 3 S S"],
    which: Int[Tensor, " K"],
    windows: Float[Tensor, "K 4"],
    holes: Float[Tensor, "K 4"] | None,
    *,
    side: int,
) -> Float[Tensor, "K 3 side side"]:
    """Return windows of pictures, brought to one size, in [0, 1].

    Pixels are interpolated bilinearly where a window grows, and averaged over as many samples as it has
    pixels where it shrinks, which keeps fine structure from aliasing. A hole is filled before anything is
    interpolated, and covers every pixel that it touches, so that nothing hidden reaches the encoder.

    Args:
        pictures: What is cut from.
        which: The picture of each window.
        windows: In shares of the picture; they may reach beyond it.
        holes: In shares of the picture, or None.
        side: In pixels.
    """
    size = pictures.shape[-1]
    mean = torch.tensor(MEAN_COLOUR, device=pictures.device).view(1, 3, 1, 1)
    centred = pictures.float() / 255 - mean  # the mean colour is 0, as is all that lies outside a picture
    if holes is not None:
        centred = centred[which].masked_fill(_inside(holes, size)[:, None], 0.0)
        which = torch.arange(len(which), device=pictures.device)
    corners = torch.cat([windows[:, :2], windows[:, :2] + windows[:, 2:]], dim=1) * size
    rois = torch.cat([which[:, None].to(corners), corners], dim=1)
    return (roi_align(centred, rois, side, aligned=True) + mean).clamp(0, 1)


def with_hole(picture: UInt8[Tensor, "3 S S"], box: Box) -> UInt8[Tensor, "3 S S"]:
    """Return a picture that shows the mean colour at every pixel that a box touches."""
    inside = _inside(torch.tensor([box]), picture.shape[-1])[0]
    return torch.where(inside, torch.tensor(MEAN_COLOUR).mul(255).round().byte().view(3, 1, 1), picture)


def encode(
    encoder: Encoder, crops: Float[Tensor, "K 3 S S"], stages: Sequence[str], *, cells: int
) -> dict[str, Float[Tensor, "K D"]]:
    """Return a vector of length 1 a crop and stage: its map averaged to `cells`×`cells` and flattened."""
    names = [stage.name for stage in encoder.stages]
    maps = encoder(crops)
    pooled = {name: F.adaptive_avg_pool2d(maps[names.index(name)], cells).flatten(1) for name in stages}
    return {name: F.normalize(vectors.float(), dim=1) for name, vectors in pooled.items()}


def stage_named(encoder: Encoder, name: str | None) -> str:
    """Return the name of a stage that the encoder has; the deepest where `name` is None."""
    names = [stage.name for stage in encoder.stages]
    if name is not None and name not in names:
        raise UserError(f"encoder {encoder.spec} has no stage {name!r}; {did_you_mean(name, names)}")
    return names[-1] if name is None else name


def describe(
    encoder: Encoder,
    data: ImageDataset,
    table: NDArray[Any],
    regions: Regions,
    *,
    stages: Sequence[str],
) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of the regions that a patch table lists, one array N×D a stage.

    Args:
        encoder: Is run in evaluation mode and left as it was.
        data: The split that the table is of, its pictures square and all of one size.
        table: Rows of `PATCH`, a picture's rows next to one another.
        regions: What is seen of a box, and how maps are pooled.
        stages: Which to read.
    """
    found = described(encoder, pictures_in(data, table), regions, stages)
    parts = [vectors for vectors, _ in found]
    return {name: np.concatenate([part[name] for part in parts]) for name in stages}


def describe_each(
    encoder: Encoder,
    pictures: Sequence[UInt8[Tensor, "3 S S"]],
    boxes: Sequence[Box],
    regions: Regions,
    *,
    stage: str,
) -> NDArray[np.float32]:
    """Return the vectors N×D of one region each of N pictures; arguments as for `describe`."""
    asked = (
        (picture, patch_rows(i, [box], [-1])) for i, (picture, box) in enumerate(zip(pictures, boxes, strict=True))
    )
    return np.concatenate([vectors[stage] for vectors, _ in described(encoder, asked, regions, [stage])])


def describe_regions(
    encoder: Encoder, data: ImageDataset, regions: Regions, *, stage: str, bad_images: BadImages
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the vectors N×D of all regions of a split, and their patch table; pictures are not kept.

    Args:
        encoder: Is run in evaluation mode and left as it was.
        data: A split whose pictures are square and all of one size.
        regions: Which regions, and what is read from them.
        stage: Which to read.
        bad_images: What to do about pictures that cannot be decoded.

    Raises:
        UserError: If there is no region at all, or a bad picture stops it.
    """
    check_regions(data, regions)
    read = (read_regions(data, index, regions, bad_images) for index in range(len(data)))
    found = list(described(encoder, (each for each in read if each is not None), regions, [stage]))
    if not found:
        raise no_regions(data, regions)
    return np.concatenate([vectors[stage] for vectors, _ in found]), np.concatenate([rows for _, rows in found])


def check_regions(data: ImageDataset, regions: Regions) -> None:
    """Raise a `UserError` where a data set lacks the annotations that its regions are made of."""
    if regions.mode == "objects":
        data.require("boxes", "labels")


def no_regions(data: ImageDataset, regions: Regions) -> UserError:
    """Return the error of a split without a single region."""
    return UserError(f"{data.spec}: no {regions.mode} in its {len(data)} pictures; try another --mode or --split")


def read_regions(
    data: ImageDataset, index: int, regions: Regions, bad_images: BadImages
) -> tuple[UInt8[Tensor, "3 S S"], NDArray[Any]] | None:
    """Return a picture and its rows of the patch table; None, said aloud, where it cannot be decoded.

    Raises:
        UserError: If it cannot, and `bad_images` is `stop`.
    """
    try:
        image, target = data[index]
    except BadImage as error:
        if bad_images == "stop":
            raise UserError(f"{data.spec}: {error}; --bad-images skip leaves such pictures out") from None
        print(f"{data.spec}: left out {error}", file=sys.stderr)
        return None
    return image, patch_rows(index, *regions.boxes(target, image.shape[-1]))


def described(
    encoder: Encoder,
    pictures: Iterator[tuple[UInt8[Tensor, "3 S S"], NDArray[Any]]],
    regions: Regions,
    stages: Sequence[str],
) -> Iterator[tuple[dict[str, NDArray[np.float32]], NDArray[Any]]]:
    """Yield vectors and table a batch, from pictures that are given one by one with their rows.

    Arguments as for `describe`; a batch is full at `BATCH` regions.
    """
    device = next(encoder.parameters()).device
    for crops, rows in windows(pictures, regions, side=encoder.input_size, device=device):
        with evaluating(encoder), torch.inference_mode():
            vectors = encode(encoder, crops, stages, cells=regions.cells)
        for name, value in vectors.items():
            if not value.isfinite().all():
                raise UserError(f"encoder {encoder.spec}: its stage {name} is not finite; check the encoder's weights")
        yield {name: value.cpu().numpy() for name, value in vectors.items()}, rows


def windows(
    pictures: Iterator[tuple[UInt8[Tensor, "3 S S"], NDArray[Any]]],
    regions: Regions,
    *,
    side: int,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Float[Tensor, "K 3 side side"], NDArray[Any]]]:
    """Yield what is seen of regions, as `cut` returns it, and their table, a batch of at most `BATCH` at a time.

    Args:
        pictures: One by one with their rows of the patch table.
        regions: What is seen of a box.
        side: In pixels.
        device: Where they are cut.
    """
    for images, tables in _batches(pictures):
        rows = np.concatenate(tables)
        which = torch.repeat_interleave(torch.tensor([len(table) for table in tables])).to(device)
        boxes = boxes_of(rows).to(device)
        holes = boxes if regions.mode == "contexts" else None
        yield cut(torch.stack(images).to(device), which, expand(boxes, regions.reach), holes, side=side), rows


def _batches(
    pictures: Iterator[tuple[Tensor, NDArray[Any]]],
) -> Iterator[tuple[list[Tensor], list[NDArray[Any]]]]:
    images: list[Tensor] = []
    tables: list[NDArray[Any]] = []
    waiting = 0
    for image, rows in pictures:
        for start in range(0, len(rows), BATCH):  # a fine grid's patches are more than a batch by themselves
            part = rows[start : start + BATCH]
            if waiting + len(part) > BATCH:
                yield images, tables
                images, tables, waiting = [], [], 0
            images.append(image)
            tables.append(part)
            waiting += len(part)
    if images:
        yield images, tables


def pictures_in(data: ImageDataset, table: NDArray[Any]) -> Iterator[tuple[UInt8[Tensor, "3 S S"], NDArray[Any]]]:
    """Yield the pictures that a patch table lists, each with its rows, which are next to one another."""
    starts = np.flatnonzero(np.diff(table["image"])) + 1
    for rows in np.split(table, starts) if len(table) else []:
        yield data[int(rows["image"][0])][0], rows


def _inside(boxes: Tensor, size: int) -> Tensor:
    """Return K×S×S: whether a pixel is touched by its box."""
    low = (boxes[:, :2] * size).floor()
    high = ((boxes[:, :2] + boxes[:, 2:]) * size).ceil()
    steps = torch.arange(size, device=boxes.device)
    columns, rows = ((steps >= low[:, i, None]) & (steps < high[:, i, None]) for i in (0, 1))
    return rows[:, :, None] & columns[:, None, :]
