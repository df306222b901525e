"""Pooled features of every stage of an encoder on a split, cached by content."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from downstream.classification import check_classes
from downstream.feature_files import evict, load, of_images, rows_of, store
from downstream.label_sampling import draw_labelled
from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_targets
from pretext.datasets.fingerprints import digest
from pretext.datasets.packed import PackedDataset, SizedDataset
from pretext.datasets.reading import read_batches
from pretext.embedding.encoding import check_finite, stage_maps
from pretext.encoders.base import Encoder
from pretext.encoders.files import encoder_digest
from pretext.modules.pooling import averaged
from pretext.system.cache import cache_folder, size_limit_gb
from pretext.system.errors import UserError

VERSION = 3
"""Part of the cache key; raise it whenever pooling or reading changes."""
BATCH = 256
CACHE_GB = 4.0
"""Maximum size of the cache in GB; the least recently used files are deleted. The environment variable
PRETEXT_FEATURES_GB overrides it, and `--cache-gb` sets that variable. 0 disables reading and writing."""
LIMIT = "PRETEXT_FEATURES_GB"


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
        return rows_of(self.indices, torch.from_numpy(indices))


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
    return pooled_features(encoder, data, split, sizes=(most,), indices=indices)[most]


def pooled_features(
    encoder: Encoder,
    data: ImageDataset,
    split: str,
    *,
    sizes: Sequence[int],
    indices: Int[np.ndarray, "N"] | None = None,
) -> dict[int, Features]:
    """Return `split_features` for each of several `most`; an image is encoded once for all of them."""
    limit = size_limit_gb(LIMIT, CACHE_GB)
    part = at_size(data.split(split), encoder.input_size, bad_images="skip", fit="crop")
    wanted = torch.arange(len(part)) if indices is None else torch.from_numpy(indices)
    files = {most: _file(encoder, part, most) for most in sizes}
    found = {most: load(file, wanted) if limit > 0 else None for most, file in files.items()}
    stored = {most: load(files[most], None) if limit > 0 else None for most in sizes if found[most] is None}
    missing = {
        most: wanted if some is None else wanted[~torch.isin(wanted, some["asked"])] for most, some in stored.items()
    }
    new: dict[int, dict[str, Tensor]] = {}
    for most in stored:
        if most not in new:
            alike = [each for each in missing if torch.equal(missing[each], missing[most])]
            new |= _computed(encoder, part, missing[most].numpy(), alike)
    for most, some in stored.items():
        whole = {name: _concatenated([some[name], new[most][name]]) for name in some} if some else new[most]
        if limit > 0:
            store(files[most], whole)
            evict(files[most].parent, limit)
        found[most] = of_images(whole, wanted)
    has_classes = bool(part.annotations & {"label", "labels"})
    targets = class_targets(part) if has_classes else torch.full((len(part),), -1)
    features = {}
    for most, some in found.items():
        assert some is not None
        kept = some["kept"]
        if not len(kept):
            raise UserError(f"{part.spec}: no image of this split can be decoded; check the files")
        stages = {stage.name: some[stage.name] for stage in encoder.stages}
        features[most] = Features(stages, targets[kept], kept, targets)
    return features


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
    return labelled_pooled_features(encoder, data, train_images=train_images, sizes=(most,), seed=seed)[most]


def labelled_pooled_features(
    encoder: Encoder, data: ImageDataset, *, train_images: int, sizes: Sequence[int], seed: int
) -> dict[int, tuple[Features, Features, Features]]:
    """Return `labelled_features` for each of several `most`; an image is encoded once for all of them."""
    train = training_features(encoder, data, train_images=train_images, sizes=sizes, seed=seed)
    val, test = (pooled_features(encoder, data, split, sizes=sizes) for split in ("val", "test"))
    return {most: (train[most], val[most], test[most]) for most in sizes}


def training_features(
    encoder: Encoder, data: ImageDataset, *, train_images: int, sizes: Sequence[int], seed: int
) -> dict[int, Features]:
    """Return the features of drawn labelled training images alone, for each `most`; see `labelled_features`."""
    sized = at_size(data.split("train"), encoder.input_size, bad_images="skip", fit="crop")
    chosen = draw_labelled(class_targets(sized), train_images, seed=seed)
    train = pooled_features(encoder, data, "train", sizes=sizes, indices=chosen)
    for features in train.values():
        check_classes(data.spec, features.targets, drawn=train_images > 0)
    return train


def _file(encoder: Encoder, part: SizedDataset, most: int) -> Path:
    """Return the cache's file for the features of a split."""
    device = next(encoder.parameters()).device
    known = (encoder_digest(encoder), device.type, part.fingerprint, str(encoder.input_size), part.fit)
    return cache_folder("features") / f"{digest(*known, str(most), str(VERSION))}.safetensors"


def _computed(
    encoder: Encoder, data: ImageDataset, indices: Int[np.ndarray, "N"], sizes: Sequence[int]
) -> dict[int, dict[str, Tensor]]:
    """Return, by size, features by stage, the indices of decoded images (`kept`), and all requested ones (`asked`)."""
    found: dict[int, dict[str, list[Tensor]]] = {most: {stage.name: [] for stage in encoder.stages} for most in sizes}
    kept: list[int] = []
    for images, read in image_batches(data, indices):
        kept += read
        for stage, maps in stage_maps(encoder, images).items():
            for most, parts in found.items():
                parts[stage].append(pooled(maps, most).float().cpu())
    known = {"kept": torch.tensor(kept, dtype=torch.int64), "asked": torch.from_numpy(indices.copy())}
    features = {}
    for most, parts in found.items():
        features[most] = {name: _concatenated(some) for name, some in parts.items()}
        for name, values in features[most].items():
            check_finite(encoder, name, values)
    return {most: stages | known for most, stages in features.items()}


def _concatenated(parts: list[Tensor]) -> Tensor:
    """Concatenate rows. Empty parts, of images that cannot be decoded, have unknown width and are dropped."""
    some = [part for part in parts if len(part)]
    return torch.cat(some) if some else torch.empty(0, 0)


def pooled(maps: Float[Tensor, "B C H W"], most: int) -> Float[Tensor, "B D"]:
    """Return maps averaged to the largest square grid with at most `most` features; at least one cell."""
    side = max(1, min(int((most / maps.shape[1]) ** 0.5), *maps.shape[2:]))
    return averaged(maps, side).flatten(1)


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
