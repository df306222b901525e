"""Batches for training, in an order that only the seed and the step decide, so that a resumed run sees the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Int, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.classification import class_targets
from pretext.datasets.packed import PackedDataset
from pretext.system.errors import UserError
from pretext.tasks.base import Batch, Clips

ChooseFrames = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""See `Task.choose_frames`."""


class Loaded(NamedTuple):
    """What a step gets; see `Batch`."""

    images: UInt8[Tensor, "B 3 S S"]
    labels: Shaped[Tensor, "B ..."] | None
    clips: Clips | None

    def each(self, change: Callable[[Tensor], Tensor]) -> Loaded:
        """Return it with every tensor changed."""
        return Loaded(
            change(self.images),
            None if self.labels is None else change(self.labels),
            None if self.clips is None else Clips(*(change(part) for part in self.clips)),
        )

    def batch(self, generator: torch.Generator) -> Batch:
        """Return what a task is given."""
        return Batch(self.images, self.labels, generator, self.clips)


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
    frames: int = 1,
    choose: ChooseFrames | None = None,
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
        frames: Frames of one clip that a step sees, where the data set has clips.
        choose: Says which; needed where `frames` is above 1.
    """
    targets = class_targets(data) if labels else None
    order = _order(len(data), batch_size, seed=seed, first=first)
    clips = None
    rows: Iterator[NDArray[np.int64]] = (indices[:, None] for indices in order)
    if choose is not None and frames > 1 and (clip_of := data.clip_of) is not None:
        clips = _Places(clip_of)
        if (shortest := int(clips.length.min())) < frames:
            raise UserError(
                f"{data.spec}: its shortest clip has {shortest} frames, and {frames} are seen at a time; "
                f"leave shorter ones out by shortest={frames}"
            )
        rows = _chosen_frames(order, clips, choose, seed=seed, first=first)
    mine = (indices[rank::world] for indices in rows)

    def loaded(chosen: Int[Tensor, "B F"], seen: UInt8[Tensor, "B F 3 S S"]) -> Loaded:
        anchors = chosen[:, 0]
        of_clips = None if clips is None else Clips(seen, clips.number[anchors], clips.place[chosen])
        return Loaded(seen[:, 0], None if targets is None else targets[anchors], of_clips)

    if isinstance(data, PackedDataset):
        for indices in mine:
            chosen = torch.from_numpy(indices)
            yield loaded(chosen, data.images[chosen])
        return
    loader = DataLoader(
        _Pictures(data),
        batch_sampler=(indices.ravel().tolist() for indices in mine),
        num_workers=workers,
        collate_fn=functools.partial(_stack, frames=1 if clips is None else frames),
        multiprocessing_context="spawn" if workers else None,
    )
    for chosen, images in loader:
        if not len(chosen):
            raise UserError(f"{data.spec}: {batch_size} pictures in a row cannot be decoded; see to the files")
        yield loaded(chosen, images)


class _Places:
    """Where every frame of a data set is: the number of its clip, its place in it, and the clip's length."""

    def __init__(self, clip_of: Int[Tensor, "N"]) -> None:
        _, self.number, lengths = torch.unique_consecutive(clip_of, return_inverse=True, return_counts=True)
        self.starts = lengths.cumsum(0) - lengths
        self.place = torch.arange(len(clip_of)) - self.starts[self.number]
        self.length = lengths[self.number]


def _chosen_frames(
    order: Iterator[NDArray[np.int64]], clips: _Places, choose: ChooseFrames, *, seed: int, first: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the frames that a step sees, B×F, of the clips whose frames the order draws."""
    for step, indices in enumerate(order, start=first):
        entropy = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(entropy >> 1))
        drawn = torch.from_numpy(indices)
        places = choose(clips.place[drawn], clips.length[drawn], generator)
        yield (clips.starts[clips.number[drawn]][:, None] + places).numpy()


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


def _stack(items: list[tuple[int, Tensor | None]], *, frames: int) -> tuple[Tensor, Tensor]:
    """Return numbers and pictures in rows of `frames`, without the rows of which a picture is missing."""
    rows = [items[start : start + frames] for start in range(0, len(items), frames)]
    sound = [[(index, image) for index, image in row if image is not None] for row in rows]
    sound = [row for row in sound if len(row) == frames]
    images = torch.stack([torch.stack([image for _, image in row]) for row in sound]) if sound else torch.empty(0)
    return torch.tensor([[index for index, _ in row] for row in sound], dtype=torch.int64), images
