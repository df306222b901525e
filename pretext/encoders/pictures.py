"""Pictures of any kind, mixed in type and size, as batches for an encoder: what `Encoder.embed` takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pretext.datasets.base import BadImage
from pretext.datasets.decoding import decode_draft, from_pillow
from pretext.datasets.fitting import fitted
from pretext.system.errors import UserError
from pretext.system.progress import progress_bar
from pretext.system.specs import path_of

Picture = Tensor | NDArray[np.uint8] | Image.Image | str | Path
AnyPictures = Picture | Sequence[Picture]
BATCH = 64
"""Pictures per batch if none is given."""
TAKEN = "a tensor B×3×H×W or 3×H×W, a uint8 array N×H×W×3 or H×W×3, a PIL picture, a path, or a list of such pictures"


def in_batches(
    pictures: AnyPictures,
    encode: Callable[[Shaped[Tensor, "B 3 H W"]], Float[Tensor, "B D"]],
    *,
    size: int,
    batch_size: int | None,
    check: Callable[[Tensor], None],
) -> Float[Tensor, "N D"]:
    """Return the vectors of pictures on the CPU. Long lists show their progress.

    A tensor B×3×H×W keeps its size. Every other picture is resized to size×size as evaluation resizes it; a JPEG's
    path is decoded at reduced size, where evaluation does so.

    Args:
        pictures: See `Encoder.embed`.
        encode: Encodes a batch.
        size: Side of the encoder's pictures in pixels.
        batch_size: Pictures per batch; None is `BATCH`.
        check: Raises a UserError for a tensor of another type or range than the encoder takes.

    Raises:
        UserError: If something is no picture, cannot be read, or there are no pictures.
    """
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; allowed is 1 or more")
    listed = _listed(pictures)
    if not len(listed):
        raise UserError("embed: there are no pictures; give at least one")
    for number, each in enumerate([] if isinstance(listed, Tensor) else listed, start=1):
        _check_kind(each, f"picture {number} of {len(listed)}" if len(listed) > 1 else "the picture", check)

    vectors, step = [], batch_size or BATCH
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress_bar("embed", len(listed), unit="img") as bar,
    ):
        for start in range(0, len(listed), step):
            some = listed[start : start + step]
            if not isinstance(some, Tensor):
                pixels = [each if isinstance(each, str | Path) else _pixels(each) for each in some]
                some = _stacked([*pool.map(lambda each: _sized(each, size), pixels)])
            vectors.append(encode(some).cpu())
            bar.update(len(some))
    return torch.cat(vectors)


def _listed(pictures: object) -> Sequence[Picture] | Tensor:
    """Return a batch tensor as it is, and everything else as a list of single pictures."""
    if isinstance(pictures, Tensor) and pictures.ndim == 4:
        return pictures
    if isinstance(pictures, np.ndarray) and pictures.ndim == 4:
        return [*pictures]
    return pictures if isinstance(pictures, list | tuple) else [pictures]  # type: ignore[list-item]


def _check_kind(picture: object, which: str, check: Callable[[Tensor], None]) -> None:
    """Refuse what is no picture before any is encoded."""
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] != 3:
            raise UserError(f"embed: {which} is a tensor of shape {_shape(picture)}; give 3×H×W, or a batch B×3×H×W")
        check(picture)
    elif isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise UserError(
                f"embed: {which} is an array of {picture.dtype}, {_shape(picture)}; give uint8, H×W×3 or N×H×W×3"
            )
    elif isinstance(picture, str | Path):
        if not path_of(str(picture)).exists():  # said now and not after hours
            raise UserError(f"embed: {picture}: no such file; correct the path")
    elif not isinstance(picture, Image.Image):
        raise UserError(f"embed: {which} is of type {type(picture).__name__}; give {TAKEN}")
    if isinstance(picture, Tensor | np.ndarray) and 0 in picture.shape:
        raise UserError(f"embed: {which} has no pixels, {_shape(picture)}; give pictures of at least 1×1")


def _shape(picture: Tensor | NDArray[np.uint8]) -> str:
    return "×".join(map(str, picture.shape)) or "one number"


def _pixels(picture: Picture) -> Shaped[Tensor, "3 H W"]:
    """Return the pixels of a picture in memory. One PIL picture must not be read by two threads."""
    try:
        if isinstance(picture, Image.Image):
            return from_pillow(picture)
    except BadImage as error:
        raise UserError(f"embed: {error}; leave it out, or mend it") from None
    if isinstance(picture, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
    assert isinstance(picture, Tensor)
    return picture.detach() if picture.dtype == torch.uint8 else picture.detach().float()


def _sized(picture: Shaped[Tensor, "3 H W"] | str | Path, size: int) -> Shaped[Tensor, "3 size size"]:
    """Return a picture at size×size, decoded if it is a path."""
    try:
        if not isinstance(picture, Tensor):
            picture = decode_draft(path_of(str(picture)), 2 * size)[0]
    except BadImage as error:
        raise UserError(f"embed: {error}; leave it out, or mend it") from None
    return fitted(picture, {}, size, "crop")[0]


def _stacked(pictures: list[Tensor]) -> Shaped[Tensor, "B 3 S S"]:
    """Stack pictures; bytes among floats become floats, as the encoder makes them."""
    if len({each.dtype for each in pictures}) > 1:
        pictures = [each.float() / 255 if each.dtype == torch.uint8 else each for each in pictures]
    return torch.stack([each.cpu() for each in pictures])
