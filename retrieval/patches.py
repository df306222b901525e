"""Encode regions of pictures as vectors: cut, encode, pool, normalise.

A window that reaches outside its picture is padded with the mean colour, which also fills holes. Pictures are read one
by one and regions are encoded in batches, so memory grows only with the number of vectors.
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
from pretext.embedding.encoding import check_finite
from pretext.encoders.base import Encoder, evaluating
from pretext.modules.pooling import averaged
from pretext.system.errors import UserError
from pretext.transforms.masks import MEAN_COLOUR
from retrieval.regions import Box, Regions, boxes_of, expand, patch_rows

BATCH = 128
"""Regions per encoder batch."""
Reading = tuple[str, int]
"""A stage, and the cells per side to which its map is averaged."""


def cut(
    pictures: UInt8[Tensor, "P 3 S S"],
    which: Int[Tensor, " K"],
    windows: Float[Tensor, "K 4"],
    holes: Float[Tensor, "K 4"] | None,
    *,
    side: int,
) -> Float[Tensor, "K 3 side side"]:
    """Return windows of pictures, resized to one size, in [0, 1].

    Enlarging interpolates bilinearly; shrinking averages all pixels of the window, which prevents aliasing. A hole is
    filled before interpolation and covers every pixel it touches, so no hidden pixel reaches the encoder.

    Args:
        pictures: Pictures to cut from.
        which: Index of each window's picture.
        windows: Left, top, width and height as shares of the picture; may reach outside it.
        holes: Boxes to fill, in the same units, or None.
        side: Output side in pixels.
    """
    size = pictures.shape[-1]
    mean = torch.tensor(MEAN_COLOUR, device=pictures.device).view(1, 3, 1, 1)
    centred = pictures.float() / 255 - mean  # the mean colour becomes 0, which roi_align also uses outside the picture
    if holes is not None:
        centred = centred[which].masked_fill(_inside(holes, size)[:, None], 0.0)
        which = torch.arange(len(which), device=pictures.device)
    corners = torch.cat([windows[:, :2], windows[:, :2] + windows[:, 2:]], dim=1) * size
    rois = torch.cat([which[:, None].to(corners), corners], dim=1)
    return (roi_align(centred, rois, side, aligned=True) + mean).clamp(0, 1)


def with_hole(picture: UInt8[Tensor, "3 S S"], box: Box) -> UInt8[Tensor, "3 S S"]:
    """Return a picture with every pixel that the box touches set to the mean colour."""
    inside = _inside(torch.tensor([box]), picture.shape[-1])[0]
    return torch.where(inside, torch.tensor(MEAN_COLOUR).mul(255).round().byte().view(3, 1, 1), picture)


def encode(
    encoder: Encoder, crops: Float[Tensor, "K 3 S S"], readings: Sequence[Reading]
) -> dict[Reading, Float[Tensor, "K D"]]:
    """Return one vector of length 1 per crop for each reading: the stage's map averaged to pool×pool and flattened."""
    names = [stage.name for stage in encoder.stages]
    maps = encoder(crops)
    pooled = {(name, pool): averaged(maps[names.index(name)], pool).flatten(1) for name, pool in readings}
    return {reading: F.normalize(vectors.float(), dim=1) for reading, vectors in pooled.items()}


def describe(
    encoder: Encoder,
    data: ImageDataset,
    table: NDArray[Any],
    regions: Regions,
    *,
    stages: Sequence[str],
) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of the regions in a patch table, one N×D array per stage.

    Args:
        encoder: Runs in evaluation mode; its state is restored.
        data: The split of the table, with square pictures of one size.
        table: Rows of `PATCH`; the rows of one picture are consecutive.
        regions: Window and pooling of a region.
        stages: Encoder stages to read.
    """
    found = describe_pooled(encoder, data, table, regions, [(stage, regions.cells) for stage in stages])
    return {stage: vectors for (stage, _), vectors in found.items()}


def describe_pooled(
    encoder: Encoder,
    data: ImageDataset,
    table: NDArray[Any],
    regions: Regions,
    readings: Sequence[Reading],
) -> dict[Reading, NDArray[np.float32]]:
    """Return the vectors of the regions in a patch table for each reading; see `describe` and `encode`."""
    parts = [part for part, _ in _encoded(encoder, pictures_in(data, table), regions, readings)]
    return {reading: np.concatenate([part[reading] for part in parts]) for reading in parts[0]}


def describe_each(
    encoder: Encoder,
    pictures: Sequence[UInt8[Tensor, "3 S S"]],
    boxes: Sequence[Box],
    regions: Regions,
    *,
    stage: str,
) -> NDArray[np.float32]:
    """Return the N×D vectors of one region in each of N pictures. See `describe`."""
    queries = (
        (picture, patch_rows(i, [box], [-1])) for i, (picture, box) in enumerate(zip(pictures, boxes, strict=True))
    )
    return np.concatenate([vectors[stage] for vectors, _ in describe_batches(encoder, queries, regions, [stage])])


def describe_regions(
    encoder: Encoder, data: ImageDataset, regions: Regions, *, stage: str, bad_images: BadImages
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the N×D vectors of all regions of a split, and their patch table. Pictures are not kept in memory.

    Args:
        encoder: Runs in evaluation mode; its state is restored.
        data: A split with square pictures of one size.
        regions: Which regions to encode, and how to pool their maps.
        stage: Encoder stage to read.
        bad_images: What to do with pictures that cannot be decoded.

    Raises:
        UserError: If there are no regions, or a picture cannot be decoded and `bad_images` is `stop`.
    """
    check_regions(data, regions)
    read = (read_regions(data, index, regions, bad_images) for index in range(len(data)))
    batches = list(describe_batches(encoder, (each for each in read if each is not None), regions, [stage]))
    if not batches:
        raise no_regions_error(data, regions)
    return np.concatenate([vectors[stage] for vectors, _ in batches]), np.concatenate([rows for _, rows in batches])


def check_regions(data: ImageDataset, regions: Regions) -> None:
    """Raise a `UserError` if the data set lacks annotations that its regions need."""
    if regions.mode == "objects":
        data.require("boxes", "labels")


def no_regions_error(data: ImageDataset, regions: Regions) -> UserError:
    """Return the error for a split without regions."""
    return UserError(f"{data.spec}: no {regions.mode} in its {len(data)} pictures; try another --mode or --split")


def read_regions(
    data: ImageDataset, index: int, regions: Regions, bad_images: BadImages
) -> tuple[UInt8[Tensor, "3 S S"], NDArray[Any]] | None:
    """Return a picture and its rows of the patch table; None, with a message, if it cannot be decoded.

    Raises:
        UserError: If it cannot be decoded and `bad_images` is `stop`.
    """
    try:
        image, target = data[index]
    except BadImage as error:
        if bad_images == "stop":
            raise UserError(f"{data.spec}: {error}; skip such pictures with --bad-images skip") from None
        print(f"{data.spec}: skipped {error}", file=sys.stderr)
        return None
    return image, patch_rows(index, *regions.boxes(target, image.shape[-1]))


def describe_batches(
    encoder: Encoder,
    pictures: Iterator[tuple[UInt8[Tensor, "3 S S"], NDArray[Any]]],
    regions: Regions,
    stages: Sequence[str],
) -> Iterator[tuple[dict[str, NDArray[np.float32]], NDArray[Any]]]:
    """Yield the vectors by stage and the patch table of each batch of up to `BATCH` regions.

    Args:
        encoder: Runs in evaluation mode; its state is restored.
        pictures: Pictures with their rows of the patch table, one by one.
        regions: Window and pooling of a region.
        stages: Encoder stages to read.

    Raises:
        UserError: If a vector is not finite.
    """
    for vectors, rows in _encoded(encoder, pictures, regions, [(stage, regions.cells) for stage in stages]):
        yield {stage: value for (stage, _), value in vectors.items()}, rows


def windows(
    pictures: Iterator[tuple[UInt8[Tensor, "3 S S"], NDArray[Any]]],
    regions: Regions,
    *,
    side: int,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Float[Tensor, "K 3 side side"], NDArray[Any]]]:
    """Yield the windows of regions, as `cut` returns them, and their patch table, in batches of up to `BATCH`.

    Args:
        pictures: Pictures with their rows of the patch table, one by one.
        regions: Window of a region.
        side: Output side in pixels.
        device: Device that cuts the windows.
    """
    for images, tables in _batches(pictures):
        rows = np.concatenate(tables)
        which = torch.repeat_interleave(torch.tensor([len(table) for table in tables])).to(device)
        boxes = boxes_of(rows).to(device)
        holes = boxes if regions.mode == "contexts" else None
        yield cut(torch.stack(images).to(device), which, expand(boxes, regions.reach), holes, side=side), rows


def _encoded(
    encoder: Encoder,
    pictures: Iterator[tuple[UInt8[Tensor, "3 S S"], NDArray[Any]]],
    regions: Regions,
    readings: Sequence[Reading],
) -> Iterator[tuple[dict[Reading, NDArray[np.float32]], NDArray[Any]]]:
    """Yield the vectors by reading, and the patch table of each batch; see `describe_batches`."""
    device = next(encoder.parameters()).device
    for crops, rows in windows(pictures, regions, side=encoder.input_size, device=device):
        with evaluating(encoder), torch.inference_mode():
            vectors = encode(encoder, crops, readings)
        for (stage, _), value in vectors.items():
            check_finite(encoder, stage, value)
        yield {reading: value.cpu().numpy() for reading, value in vectors.items()}, rows


def _batches(
    pictures: Iterator[tuple[Tensor, NDArray[Any]]],
) -> Iterator[tuple[list[Tensor], list[NDArray[Any]]]]:
    images: list[Tensor] = []
    tables: list[NDArray[Any]] = []
    pending = 0
    for image, rows in pictures:
        for start in range(0, len(rows), BATCH):  # one picture's grid can exceed a batch
            part = rows[start : start + BATCH]
            if pending + len(part) > BATCH:
                yield images, tables
                images, tables, pending = [], [], 0
            images.append(image)
            tables.append(part)
            pending += len(part)
    if images:
        yield images, tables


def pictures_in(data: ImageDataset, table: NDArray[Any]) -> Iterator[tuple[UInt8[Tensor, "3 S S"], NDArray[Any]]]:
    """Yield the pictures of a patch table with their rows. The rows of one picture must be consecutive."""
    starts = np.flatnonzero(np.diff(table["image"])) + 1
    for rows in np.split(table, starts) if len(table) else []:
        yield data[int(rows["image"][0])][0], rows


def _inside(boxes: Tensor, size: int) -> Tensor:
    """Return a K×S×S mask of the pixels that each box touches."""
    low = (boxes[:, :2] * size).floor()
    high = ((boxes[:, :2] + boxes[:, 2:]) * size).ceil()
    steps = torch.arange(size, device=boxes.device)
    columns, rows = ((steps >= low[:, i, None]) & (steps < high[:, i, None]) for i in (0, 1))
    return rows[:, :, None] & columns[:, None, :]
