"""Batches for training, in an order that only the seed and the step decide, so that a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.classification import class_targets
from pretext.datasets.packed import PackedDataset
from pretext.errors import UserError

Loaded = tuple[UInt8[Tensor, "B 3 S S"], Shaped[Tensor, "B ..."] | None]


def load_batches(
    data: ImageDataset,
    batch_size: int,
    *,
    seed: int,
    first: int,
    rank: int,
    world: int,
    labels: bool,
    workers: int,
) -> Iterator[Loaded]:
    """Yield pictures (and labels) without end, from step `first` on.

    Every pass over the data is in an order of its own, and batches run across passes. Nothing but pictures is read
    unless `labels`. A picture that cannot be decoded is left out of its batch.

    Args:
        data: Its pictures are of one size.
        batch_size: Of all processes together.
        seed: Of the order.
        first: Step to start from.
        rank: This process's number.
        world: Number of processes.
        labels: Whether to yield `class_targets` too.
        workers: Processes that decode, where the data set is not packed.
    """
    targets = class_targets(data) if labels else None
    order = _order(len(data), batch_size, seed=seed, first=first)
    mine = (indices[rank::world] for indices in order)
    if isinstance(data, PackedDataset):
        for indices in mine:
            chosen = torch.from_numpy(indices)
            yield data.images[chosen], None if targets is None else targets[chosen]
        return
    loader = DataLoader(
        _Pictures(data),
        batch_sampler=mine,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_stack,
        multiprocessing_context="spawn" if workers else None,
    )
    for chosen, images in loader:
        if not len(chosen):
            raise UserError(f"{data.spec}: {batch_size} pictures in a row cannot be decoded; see to the files")
        yield images, None if targets is None else targets[chosen]


def _order(length: int, batch_size: int, *, seed: int, first: int) -> Iterator[NDArray[np.int64]]:
    position = first * batch_size
    epoch, skip = divmod(position, length)
    waiting = np.random.default_rng((seed, epoch)).permutation(length)[skip:]
    while True:
        while len(waiting) < batch_size:
            epoch += 1
            waiting = np.concatenate([waiting, np.random.default_rng((seed, epoch)).permutation(length)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


@final
class _Pictures(Dataset[Any]):
    def __init__(self, data: ImageDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None]:
        try:
            return int(index), self.data[int(index)][0]
        except BadImage:  # of data too large to be packed; packing has named all others
            return int(index), None


def _stack(items: list[tuple[int, Tensor | None]]) -> tuple[Tensor, Tensor]:
    sound = [(index, image) for index, image in items if image is not None]
    images = torch.stack([image for _, image in sound]) if sound else torch.empty(0)
    return torch.tensor([index for index, _ in sound], dtype=torch.int64), images
