"""What an encoder sees in many pictures, every stage of it, computed once and kept by content.

The cache is a folder of safetensors files below `cache_folder("features")`, each named by all that its content
depends on. It may be deleted at any time. It is held below `PRETEXT_FEATURES_GB` gigabytes by leaving out what
was not used for longest; 0 keeps nothing.
"""

from __future__ import annotations

import copy
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pretext.checkpoint import atomic_write
from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.cache import cache_folder
from pretext.datasets.fingerprints import digest
from pretext.datasets.packed import PackedDataset
from pretext.encoders.base import Encoder, Stage
from pretext.encoders.files import encoder_digest
from pretext.errors import UserError

VERSION = 1
"""Rises whenever features of the same encoder and pictures change."""
BATCH = 200
"""Pictures that are encoded at a time."""
KEPT_GB = 2.0
"""Most that the cache holds. The variable PRETEXT_FEATURES_GB overrides it."""
STALE_S = 24 * 3600
"""Age at which what a killed process left half written is swept away."""
POSITIONS = "positions"


class Features(NamedTuple):
    """Features of some pictures of a split."""

    positions: Int[Tensor, "N"]
    """Which of the asked-for pictures these are: all, but for those that cannot be decoded."""
    stages: dict[str, Float[Tensor, "N D"]]
    """By stage, from the first to the deepest."""


def features_of(
    encoder: Encoder, data: ImageDataset, indices: NDArray[np.int64], *, most: int
) -> Features:
    """Return every stage's features of some pictures, from the cache or computed.

    Each map is averaged over as fine a square grid of cells as leaves it at most `most` numbers a picture, so
    that shallow and deep stages have about equally many; a map with more channels than that is averaged over
    space.

    Args:
        encoder: Is run in evaluation mode, where it lies, and left as it was.
        data: A split at the encoder's size.
        indices: Which of its pictures, at least one.
        most: Numbers a picture and stage.

    Raises:
        UserError: If none of the pictures can be decoded, or a feature is not finite.

    Source: Zhang et al. 2016 (Colorful Image Colorization), section 4.2.1, and Goyal et al. 2019, whose maps
        are brought to about 9,000 numbers.
    Deviations: average pooling over equal cells, and fewer numbers by default, for few labels.
    """
    device = next(encoder.parameters()).device
    key = digest(
        "features",
        *map(str, (VERSION, encoder_digest(encoder), encoder.mean, encoder.std, device.type)),
        *map(str, (data.fingerprint, encoder.input_size, most)),
        indices.tobytes(),
    )
    limit = _limit_gb() * 1e9
    path = cache_folder("features") / f"{key}.safetensors" if limit else None
    names = [stage.name for stage in encoder.stages]
    kept = None if path is None else _kept(path)
    if kept is None:
        kept = _computed(encoder, data, indices, most)
        if path is not None:
            _keep(path, kept, limit)
    return Features(kept[POSITIONS], {name: kept[name] for name in names})


def grid(stage: Stage, map_side: int, most: int) -> int:
    """Return the cells a side that a stage's map is averaged over: at least 1, at most the map's own."""
    return max(1, min(map_side, math.isqrt(most // stage.channels)))


def pictures(data: ImageDataset, indices: NDArray[np.int64]) -> tuple[UInt8[Tensor, "B 3 S S"], list[int]]:
    """Return pictures, and the positions among `indices` of those that can be decoded."""
    if isinstance(data, PackedDataset):
        return data.images[torch.from_numpy(indices)], list(range(len(indices)))
    images, positions = [], []
    for position, index in enumerate(indices):
        try:
            images.append(data[int(index)][0])
        except BadImage:  # of data too large to be packed; packing has named all others
            continue
        positions.append(position)
    return (torch.stack(images) if images else torch.zeros(0, 3, 1, 1, dtype=torch.uint8)), positions


def _computed(
    encoder: Encoder, data: ImageDataset, indices: NDArray[np.int64], most: int
) -> dict[str, Tensor]:
    """Run a copy of the encoder over the pictures."""
    positions: list[int] = []
    parts: list[list[Tensor]] = []
    for found, maps in _maps(encoder, data, indices):
        positions += found
        sides = [grid(stage, min(m.shape[-2:]), most) for stage, m in zip(encoder.stages, maps, strict=True)]
        parts.append(
            [F.adaptive_avg_pool2d(m, side).flatten(1).float().cpu() for m, side in zip(maps, sides, strict=True)]
        )
    if not positions:
        raise UserError(f"{data.spec}: none of {len(indices)} pictures can be decoded; see to the files")
    stages = {
        stage.name: torch.cat(columns)
        for stage, columns in zip(encoder.stages, zip(*parts, strict=True), strict=True)
    }
    for name, values in stages.items():
        if not values.isfinite().all():
            raise UserError(f"encoder {encoder.spec}: its stage {name} is not finite; check the encoder's weights")
    return {POSITIONS: torch.tensor(positions), **stages}


@torch.inference_mode()
def _maps(
    encoder: Encoder, data: ImageDataset, indices: NDArray[np.int64]
) -> Iterator[tuple[list[int], list[Tensor]]]:
    from tqdm import tqdm

    device = next(encoder.parameters()).device
    running = copy.deepcopy(encoder).eval().to(memory_format=torch.channels_last)
    starts = range(0, len(indices), BATCH)
    for start in tqdm(starts, "features", delay=2, disable=None, leave=False, unit="batch"):
        images, found = pictures(data, indices[start : start + BATCH])
        if found:
            moved = images.to(device).contiguous(memory_format=torch.channels_last)
            yield [start + position for position in found], running(moved)


def _kept(path: Path) -> dict[str, Tensor] | None:
    """Return a cache file's content; None where there is none, or it is not whole."""
    try:
        tensors = load_file(path)
        os.utime(path)  # when it was used last
    except (FileNotFoundError, SafetensorError):
        return None
    return tensors


def _keep(path: Path, tensors: dict[str, Tensor], limit: float) -> None:
    """Write a cache file, and make room for it. A disk that is full costs the file and nothing else."""
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > limit:
        return
    try:
        _make_room(path.parent, limit - size)
        with atomic_write(path) as beside:
            save_file(tensors, beside)
    except OSError as error:
        print(f"features are not kept ({error.strerror}): {path.parent}", file=sys.stderr)


def _make_room(folder: Path, left: float) -> None:
    """Remove what was not used for longest until the rest fits into `left` bytes."""
    found = []
    for file in folder.iterdir():
        try:
            about = file.stat()
        except FileNotFoundError:  # another process made room
            continue
        if file.name.startswith("."):
            if time.time() - about.st_mtime > STALE_S:
                file.unlink(missing_ok=True)
        else:
            found.append((about.st_mtime, about.st_size, file))
    for _, size, file in sorted(found, key=lambda each: -each[0]):
        left -= size
        if left < 0:
            file.unlink(missing_ok=True)


def _limit_gb() -> float:
    text = os.environ.get("PRETEXT_FEATURES_GB")
    try:
        limit = KEPT_GB if text is None else float(text)
    except ValueError:
        limit = -1
    if not limit >= 0:
        raise UserError(f"PRETEXT_FEATURES_GB={text}: expected a number of gigabytes, 0 or more")
    return limit
