"""An encoder's features of a split, every stage pooled, computed once and kept by content."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from downstream.label_sampling import check_classes, draw_labelled
from pretext.datasets import at_size
from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.classification import class_targets
from pretext.datasets.fingerprints import digest
from pretext.datasets.packed import PackedDataset
from pretext.encoders.base import Encoder, evaluating
from pretext.encoders.files import encoder_digest
from pretext.system.cache import cache_folder, size_limit_gb
from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError

VERSION = 2
"""Rises whenever pooling or reading changes."""
BATCH = 256
FEWEST = 16
"""Pictures a batch at least, so that a picture's features are the same whichever others are computed with it."""
CACHE_GB = 4.0
"""Largest cache; the least recently used features go. The variable PRETEXT_FEATURES_GB overrides it, and
`--cache-gb` sets that; at 0 nothing is kept, nor is read what was."""
LIMIT = "PRETEXT_FEATURES_GB"


class Features(NamedTuple):
    """Features of some pictures of a split."""

    stages: dict[str, Float[Tensor, "N D"]]
    targets: Int[Tensor, "N ..."]
    """See `class_targets`; -1 throughout where pictures have no classes."""
    places: Int[Tensor, "N"]
    """Which pictures of the split they are: as asked for, less those that turned out undecodable."""

    def drawn(self, count: int, *, seed: int) -> Features:
        """Return `count` of them, in the order that they have here: a split may lie sorted by class.

        Args:
            count: See `draw_labelled`.
            seed: See `draw_labelled`.
        """
        chosen = torch.from_numpy(np.sort(draw_labelled(self.targets, count, seed=seed)))
        stages = {stage: values[chosen] for stage, values in self.stages.items()}
        return Features(stages, self.targets[chosen], self.places[chosen])

    def rows(self, indices: Int[np.ndarray, "M"]) -> Int[Tensor, "M"]:
        """Return where pictures of the split are among these; -1 where they are not."""
        return _rows_of(self.places, torch.from_numpy(indices))


def limit_cache(gigabytes: float) -> None:
    """Bound the cache of this process and of those that it starts.

    Raises:
        UserError: If it is not a number from 0 on.
    """
    if not 0 <= gigabytes < math.inf:
        raise UserError(f"--cache-gb is {gigabytes}; allowed is 0 (keep nothing) or more")
    os.environ[LIMIT] = str(gigabytes)


def split_features(
    encoder: Encoder, data: ImageDataset, split: str, *, most: int, indices: Int[np.ndarray, "N"] | None = None
) -> Features:
    """Return every stage's features of a split, adaptively pooled to at most `most` numbers a picture.

    Every stage has about as many, as in the AlexNet protocol of Zhang et al. 2016 and Goyal et al. 2019.

    Args:
        encoder: In evaluation mode for the time being; left as it was.
        data: Any of the splits.
        split: Which one.
        most: Numbers a picture and stage.
        indices: Pictures of the split; all where None.

    Raises:
        UserError: If no picture can be decoded, or features are not finite.
    """
    limit = size_limit_gb(LIMIT, CACHE_GB)
    part = at_size(data.split(split), encoder.input_size, bad_images="skip")
    asked = torch.arange(len(part)) if indices is None else torch.from_numpy(indices)
    device = next(encoder.parameters()).device
    key = digest(
        encoder_digest(encoder),
        device.type,
        part.fingerprint,
        str(encoder.input_size),
        str(most),
        str(VERSION),
    )
    file = cache_folder("features") / f"{key}.safetensors"
    stored = _stored(file) if limit > 0 else None
    missing = asked if stored is None else asked[~torch.isin(asked, stored["asked"])]
    if stored is None or len(missing):
        new = _computed(encoder, part, missing.numpy(), most)
        stored = {name: _joined([stored[name], new[name]]) for name in new} if stored else new
        if limit > 0:
            _keep(file, stored)
            _sweep(file.parent, limit)
    rows = _rows_of(stored["kept"], asked)
    rows = rows[rows >= 0]
    if not len(rows):
        raise UserError(f"{part.spec}: no picture of this split can be decoded; see to the files")
    kept = stored["kept"][rows]
    has_classes = bool(part.annotations & {"label", "labels"})
    targets = class_targets(part)[kept] if has_classes else torch.full((len(kept),), -1)
    return Features({stage.name: stored[stage.name][rows] for stage in encoder.stages}, targets, kept)


def labelled_features(
    encoder: Encoder, data: ImageDataset, *, train_images: int, most: int, seed: int
) -> tuple[Features, Features, Features]:
    """Return the features of a few labelled training pictures, and of all of val and test.

    Args:
        encoder: See `split_features`.
        data: Any of the splits.
        train_images: See `draw_labelled`.
        most: See `split_features`.
        seed: Draws the training pictures.

    Raises:
        UserError: If pictures have no classes, or the training pictures fewer than two.
    """
    sized = at_size(data.split("train"), encoder.input_size, bad_images="skip")
    chosen = draw_labelled(class_targets(sized), train_images, seed=seed)
    train = split_features(encoder, data, "train", most=most, indices=chosen)
    check_classes(data.spec, train.targets)
    return (
        train,
        split_features(encoder, data, "val", most=most),
        split_features(encoder, data, "test", most=most),
    )


def _rows_of(places: Int[Tensor, "N"], wanted: Int[Tensor, "M"]) -> Int[Tensor, "M"]:
    """Return where each of the wanted is among the places; -1 where it is not."""
    last = torch.cat((places, wanted, torch.tensor([-1]))).max().item()
    row_of = torch.full((1 + int(last),), -1)
    row_of[places] = torch.arange(len(places))
    return row_of[wanted]


def _stored(file: Path) -> dict[str, Tensor] | None:
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError):  # absent, or damaged
        return None
    with contextlib.suppress(OSError):  # swept away meanwhile
        os.utime(file)
    return tensors


def _computed(encoder: Encoder, data: ImageDataset, indices: Int[np.ndarray, "N"], most: int) -> dict[str, Tensor]:
    """Return features by stage, which pictures they are of (`kept`), and which were asked for (`asked`)."""
    device = next(encoder.parameters()).device
    found: dict[str, list[Tensor]] = {stage.name: [] for stage in encoder.stages}
    kept: list[int] = []
    with evaluating(encoder), torch.inference_mode():
        for images, read in picture_batches(data, indices):
            kept += read
            for stage, maps in zip(encoder.stages, encoder(_filled_up(images).to(device)), strict=True):
                found[stage.name].append(pooled(maps[: len(read)], most).float().cpu())
    stages = {name: _joined(parts) for name, parts in found.items()}
    for name, values in stages.items():
        if not values.isfinite().all():
            raise UserError(f"encoder {encoder.spec}: its stage {name} is not finite; check the encoder's weights")
    return stages | {"kept": torch.tensor(kept, dtype=torch.int64), "asked": torch.from_numpy(indices.copy())}


def _joined(parts: list[Tensor]) -> Tensor:
    """Return rows below one another; where no picture could be decoded there is none, whatever its length were."""
    some = [part for part in parts if len(part)]
    return torch.cat(some) if some else torch.empty(0, 0)


def _filled_up(images: UInt8[Tensor, "B 3 S S"]) -> UInt8[Tensor, "B2 3 S S"]:
    """Repeat the last picture of a few: alone it goes by another way through the processor, with other last bits."""
    lacking = FEWEST - len(images)
    return torch.cat([images, images[-1:].expand(lacking, -1, -1, -1)]) if lacking > 0 else images


def pooled(maps: Float[Tensor, "B C H W"], most: int) -> Float[Tensor, "B D"]:
    """Return maps averaged to the largest square grid with at most `most` numbers in all; at least one cell."""
    side = max(1, min(int((most / maps.shape[1]) ** 0.5), *maps.shape[2:]))
    return F.adaptive_avg_pool2d(maps, side).flatten(1)


def picture_batches(
    data: ImageDataset, indices: Int[np.ndarray, "N"]
) -> Iterator[tuple[UInt8[Tensor, "B 3 S S"], list[int]]]:
    """Yield pictures in batches, each with its indices; those that cannot be decoded are passed over."""
    for start in range(0, len(indices), BATCH):
        some = indices[start : start + BATCH]
        if isinstance(data, PackedDataset):
            yield data.images[torch.from_numpy(some)], some.tolist()
            continue
        images, read = [], []
        for index in some.tolist():
            try:
                images.append(data[index][0])
            except BadImage:  # of data too large to be packed; packing has named all others
                continue
            read.append(index)
        if read:
            yield torch.stack(images), read


def _keep(file: Path, tensors: dict[str, Tensor]) -> None:
    try:
        with atomic_write(file) as beside:
            save_file(tensors, beside)
    except FileNotFoundError:  # the folder may be deleted at any time
        return
    except OSError as error:  # a full disk costs other probes their time, and this one nothing
        print(f"features are not kept for other probes: {file.parent}: {error.strerror}", file=sys.stderr)


def _sweep(folder: Path, limit_gb: float) -> None:
    """Remove the least recently used files beyond the limit, those that a killed process left half written too."""
    stats = []
    with contextlib.suppress(FileNotFoundError):  # the whole folder is gone
        for file in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process was sooner
                stat = file.stat()
                stats.append((stat.st_mtime, stat.st_size, file))
    total = sum(size for _, size, _ in stats)
    for _, size, file in sorted(stats):
        if total <= limit_gb * 1e9:
            return
        file.unlink(missing_ok=True)
        total -= size
