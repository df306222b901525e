"""Pooled features of every stage of an encoder on a split, cached by content."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from downstream.label_sampling import check_classes, draw_labelled
from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_targets
from pretext.datasets.fingerprints import digest
from pretext.datasets.packed import PackedDataset
from pretext.datasets.reading import read_batches
from pretext.embedding.encoding import check_finite, stage_maps
from pretext.encoders.base import Encoder
from pretext.encoders.files import encoder_digest
from pretext.system.cache import cache_folder, size_limit_gb
from pretext.system.checkpoint import atomic_write, open_tensors
from pretext.system.errors import UserError

VERSION = 3
"""Part of the cache key; raise it whenever pooling or reading changes."""
BATCH = 256
CACHE_GB = 4.0
"""Maximum size of the cache in GB; the least recently used files are deleted. The environment variable
PRETEXT_FEATURES_GB overrides it, and `--cache-gb` sets that variable. 0 disables reading and writing."""
LIMIT = "PRETEXT_FEATURES_GB"
CHECKSUMS = "crc32 by block"
"""Key of the checksums in a file's metadata: JSON, a list per tensor."""
BLOCK = 256
"""Rows that share a checksum and are read together."""
DTYPES = {"F32": torch.float32, "I64": torch.int64}
"""Type by its name in a file."""


class Features(NamedTuple):
    """Features of some images of a split."""

    stages: dict[str, Float[Tensor, "N D"]]
    targets: Int[Tensor, "N ..."]
    """See `class_targets`; all -1 if the data set has no classes."""
    indices: Int[Tensor, "N"]
    """Indices of the images in the split: those requested, without those that cannot be decoded."""
    split_targets: Int[Tensor, "M ..."]
    """Targets of all images of the split, whether or not their features are here."""

    def drawn(self, count: int, *, seed: int) -> Features:
        """Return `count` images drawn by `draw_labelled`, in their present order.

        They are drawn because a split may be sorted by class.
        """
        chosen = torch.from_numpy(np.sort(draw_labelled(self.targets, count, seed=seed)))
        stages = {stage: values[chosen] for stage, values in self.stages.items()}
        return Features(stages, self.targets[chosen], self.indices[chosen], self.split_targets)

    def rows(self, indices: Int[np.ndarray, "M"]) -> Int[Tensor, "M"]:
        """Return the row of each image of the split; -1 if it is not here."""
        return _rows_of(self.indices, torch.from_numpy(indices))


def limit_cache(gigabytes: float) -> None:
    """Set the maximum cache size of this process and of those it starts.

    Raises:
        UserError: If `gigabytes` is negative or not finite.
    """
    if not 0 <= gigabytes < math.inf:
        raise UserError(f"--cache-gb is {gigabytes}; allowed is 0 (no cache) or more")
    os.environ[LIMIT] = str(gigabytes)


def split_features(
    encoder: Encoder, data: ImageDataset, split: str, *, most: int, indices: Int[np.ndarray, "N"] | None = None
) -> Features:
    """Return the features of every stage on a split, adaptively pooled to at most `most` per image.

    All stages have about the same number, as in the AlexNet protocol of Zhang et al. 2016 and Goyal et al. 2019.

    Args:
        encoder: The encoder; its mode is restored.
        data: Any split of the data set.
        split: Name of the split to read.
        most: Maximum number of features per image and stage.
        indices: Images of the split; None reads all.

    Raises:
        UserError: If no image can be decoded, or features are not finite.
    """
    limit = size_limit_gb(LIMIT, CACHE_GB)
    part = at_size(data.split(split), encoder.input_size, bad_images="skip", fit="crop")
    wanted = torch.arange(len(part)) if indices is None else torch.from_numpy(indices)
    device = next(encoder.parameters()).device
    key = digest(
        encoder_digest(encoder),
        device.type,
        part.fingerprint,
        str(encoder.input_size),
        part.fit,
        str(most),
        str(VERSION),
    )
    file = cache_folder("features") / f"{key}.safetensors"
    found = _load(file, wanted) if limit > 0 else None
    if found is None:
        stored = _load(file, None) if limit > 0 else None
        missing = wanted if stored is None else wanted[~torch.isin(wanted, stored["asked"])]
        new = _computed(encoder, part, missing.numpy(), most)
        stored = {name: _concatenated([stored[name], new[name]]) for name in new} if stored else new
        if limit > 0:
            _store(file, stored)
            _evict(file.parent, limit)
        found = _of_images(stored, wanted)
    kept = found["kept"]
    if not len(kept):
        raise UserError(f"{part.spec}: no image of this split can be decoded; check the files")
    has_classes = bool(part.annotations & {"label", "labels"})
    targets = class_targets(part) if has_classes else torch.full((len(part),), -1)
    stages = {stage.name: found[stage.name] for stage in encoder.stages}
    return Features(stages, targets[kept], kept, targets)


def labelled_features(
    encoder: Encoder, data: ImageDataset, *, train_images: int, most: int, seed: int
) -> tuple[Features, Features, Features]:
    """Return the features of drawn labelled training images, and of all of val and test.

    Args:
        encoder: See `split_features`.
        data: Any split of the data set.
        train_images: Number of training images; see `draw_labelled`.
        most: See `split_features`.
        seed: Seed of the draw.

    Raises:
        UserError: If the training images show fewer than two classes.
    """
    sized = at_size(data.split("train"), encoder.input_size, bad_images="skip", fit="crop")
    chosen = draw_labelled(class_targets(sized), train_images, seed=seed)
    train = split_features(encoder, data, "train", most=most, indices=chosen)
    check_classes(data.spec, train.targets)
    return (
        train,
        split_features(encoder, data, "val", most=most),
        split_features(encoder, data, "test", most=most),
    )


def _rows_of(places: Int[Tensor, "N"], wanted: Int[Tensor, "M"]) -> Int[Tensor, "M"]:
    """Return the position of each wanted index in `places`; -1 if it is not there."""
    last = torch.cat((places, wanted, torch.tensor([-1]))).max().item()
    row_of = torch.full((1 + int(last),), -1)
    row_of[places] = torch.arange(len(places))
    return row_of[wanted]


def _of_images(stored: dict[str, Tensor], wanted: Int[Tensor, "M"]) -> dict[str, Tensor]:
    """Return the rows of some images, in their order, without those that cannot be decoded."""
    rows = _rows_of(stored["kept"], wanted)
    rows = rows[rows >= 0]
    return {name: values if name == "asked" else values[rows] for name, values in stored.items()}


def _load(file: Path, wanted: Int[Tensor, "M"] | None) -> dict[str, Tensor] | None:
    """Return what a file holds of some images, or all of it; only the blocks of those images are read and checked.

    Returns:
        None if the file is missing or damaged, or some images were not asked for when it was written.
    """
    try:
        with open_tensors(file) as opened:
            checksums = json.loads((opened.metadata() or {})[CHECKSUMS])
            names = {*opened.keys()}
            known = {name: _read(opened, name, None, checksums[name]) for name in ("asked", "kept")}
            if wanted is None:
                found = known | {name: _read(opened, name, None, checksums[name]) for name in names - {*known}}
            elif not torch.isin(wanted, known["asked"]).all():
                return None
            else:
                rows = _rows_of(known["kept"], wanted)
                rows = rows[rows >= 0]
                found = {name: _read(opened, name, rows, checksums[name]) for name in names - {*known}}
                found |= {"asked": known["asked"], "kept": known["kept"][rows]}
    except (OSError, SafetensorError, KeyError, ValueError):  # missing, damaged, or of an earlier version
        return None
    with contextlib.suppress(OSError):  # deleted by another process
        os.utime(file)
    return found


def _read(opened: Any, name: str, rows: Int[Tensor, "M"] | None, checksums: list[str]) -> Tensor:
    """Return some rows of a stored tensor, or all of them.

    Args:
        opened: The open file.
        name: Name of the tensor.
        rows: The rows; None reads all.
        checksums: Of each block of `BLOCK` rows.

    Raises:
        ValueError: If a block that is read differs from what was written.
    """
    part = opened.get_slice(name)
    wanted = torch.arange(part.get_shape()[0]) if rows is None else rows
    blocks = wanted.div(BLOCK, rounding_mode="floor")
    found = torch.empty(len(wanted), *part.get_shape()[1:], dtype=DTYPES[part.get_dtype()])
    for block in torch.unique(blocks).tolist():
        values = part[block * BLOCK : (block + 1) * BLOCK]
        if _checksum(name, values) != checksums[block]:
            raise ValueError(f"{name}: block {block} is damaged")
        here = blocks == block
        found[here] = values[wanted[here] - block * BLOCK]
    return found


def _checksum(name: str, values: Tensor) -> str:
    """Return a checksum of name, type, shape and values."""
    known = zlib.crc32(f"{name} {values.dtype} {tuple(values.shape)}".encode())
    return f"{zlib.crc32(np.ascontiguousarray(values.numpy()).data, known):08x}"


def _computed(encoder: Encoder, data: ImageDataset, indices: Int[np.ndarray, "N"], most: int) -> dict[str, Tensor]:
    """Return features by stage, the indices of decoded images (`kept`), and all requested indices (`asked`)."""
    found: dict[str, list[Tensor]] = {stage.name: [] for stage in encoder.stages}
    kept: list[int] = []
    for images, read in image_batches(data, indices):
        kept += read
        for stage, maps in stage_maps(encoder, images).items():
            found[stage].append(pooled(maps, most).float().cpu())
    stages = {name: _concatenated(parts) for name, parts in found.items()}
    for name, values in stages.items():
        check_finite(encoder, name, values)
    return stages | {"kept": torch.tensor(kept, dtype=torch.int64), "asked": torch.from_numpy(indices.copy())}


def _concatenated(parts: list[Tensor]) -> Tensor:
    """Concatenate rows. Empty parts, of images that cannot be decoded, have unknown width and are dropped."""
    some = [part for part in parts if len(part)]
    return torch.cat(some) if some else torch.empty(0, 0)


def pooled(maps: Float[Tensor, "B C H W"], most: int) -> Float[Tensor, "B D"]:
    """Return maps averaged to the largest square grid with at most `most` features; at least one cell."""
    side = max(1, min(int((most / maps.shape[1]) ** 0.5), *maps.shape[2:]))
    return F.adaptive_avg_pool2d(maps, side).flatten(1)


def image_batches(
    data: ImageDataset, indices: Int[np.ndarray, "N"]
) -> Iterator[tuple[UInt8[Tensor, "B 3 S S"], list[int]]]:
    """Yield batches of images and their indices; images that cannot be decoded are skipped."""
    if isinstance(data, PackedDataset):
        for start in range(0, len(indices), BATCH):
            some = indices[start : start + BATCH]
            yield data.images[torch.from_numpy(some)], some.tolist()
        return
    for read in read_batches(data, indices, batch_size=BATCH, workers=os.cpu_count() or 1):
        if read.indices:  # only in data too large to be packed: packing skips bad images beforehand
            yield read.images, read.indices


def _store(file: Path, tensors: dict[str, Tensor]) -> None:
    try:
        with atomic_write(file) as beside:
            checksums = {
                name: [_checksum(name, block) for block in torch.split(values, BLOCK)]
                for name, values in tensors.items()
            }
            save_file(tensors, beside, {CHECKSUMS: json.dumps(checksums)})
    except FileNotFoundError:  # the folder may be deleted at any time
        return
    except OSError as error:  # e.g. a full disk: other probes compute the features again
        print(f"features are not cached: {file.parent}: {error.strerror}", file=sys.stderr)


def _evict(folder: Path, limit_gb: float) -> None:
    """Delete the least recently used files beyond the limit, including partial files of killed processes.

    Files that the cache has not written are neither counted nor deleted.
    """
    stats = []
    with contextlib.suppress(FileNotFoundError):  # the folder was deleted
        for file in folder.iterdir():
            if re.fullmatch(r"\.?[0-9a-f]{32}\.safetensors(\.\d+\.tmp)?", file.name) is None:
                continue
            with contextlib.suppress(FileNotFoundError):  # deleted by another process
                stat = file.stat()
                stats.append((stat.st_mtime, stat.st_size, file))
    total = sum(size for _, size, _ in stats)
    for _, size, file in sorted(stats):
        if total <= limit_gb * 1e9:
            return
        with contextlib.suppress(PermissionError):  # another user's, in a shared cache
            file.unlink(missing_ok=True)
            total -= size
