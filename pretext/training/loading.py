"""Training batches. Seed and step alone decide their order, so a resumed run sees the same batches."""

from __future__ import annotations

import functools
import io
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.classification import class_targets
from pretext.datasets.kept import is_packed, packed_pictures
from pretext.datasets.pictures import Pictures, of_any_sizes
from pretext.system.errors import UserError
from pretext.system.stopping import Stop
from pretext.tasks.base import Batch, Clips
from pretext.training.left_out import LeftOut

ChooseFrames = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""See `Task.choose_frames`."""


def load_batches(
    data: ImageDataset,
    batch_size: int,
    *,
    side: int,
    seed: int,
    first: int,
    rank: int,
    world: int,
    labels: bool,
    workers: int,
    frames: int = 1,
    choose: ChooseFrames | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Batch]:
    """Yield CPU batches without end, from step `first` on.

    Each epoch has its own random order, and a batch may span two epochs. Labels are read only if `labels` is True.
    An image that cannot be decoded is left out of its batch, which may so have no rows at all.

    Args:
        data: What `for_views` or `at_size` returns.
        batch_size: Images per step, over all processes, of which each gets as many; divisible by their number.
        side: Side in pixels of the views to cut.
        seed: Seed of the order.
        first: Step to start from, 0 for a new run.
        rank: Number of this process, from 0.
        world: Number of processes.
        labels: Whether to yield `class_targets` too.
        workers: Decoding processes; used only if the data set is not packed.
        frames: Frames per clip that the task sees; above 1 it applies to data sets with clips.
        choose: `Task.choose_frames`; required if `frames` is above 1.
        left_out: Notes the images that cannot be decoded.

    Yields:
        Batches whose generator is not seeded: the caller replaces it.

    Raises:
        UserError: If a clip has fewer than `frames` frames, or the workers cannot be started.
    """
    targets = class_targets(data) if labels else None
    order = _order(len(data), batch_size, seed=seed, first=first)
    clips = None
    rows: Iterator[NDArray[np.int64]] = (indices[:, None] for indices in order)  # B × 1
    if choose is not None and frames > 1 and (clip_of := data.clip_of) is not None:
        clips = _ClipIndex(clip_of)
        if (shortest := int(clips.length.min())) < frames:
            raise UserError(
                f"{data.spec}: its shortest clip has {shortest} frames, and the task needs {frames}; "
                f"leave out shorter clips by shortest={frames}"
            )
        rows = _chosen_frames(order, clips, choose, seed=seed, first=first)  # B × F
    share = batch_size // world
    own_rows = (indices[rank * share : (rank + 1) * share] for indices in rows)
    unseeded = torch.Generator()

    def batch(indices: Int[Tensor, "B F"], pictures: Pictures) -> Batch:
        anchors, frames = indices[:, 0], pictures.rows(lambda tensor: tensor.view(*indices.shape, *tensor.shape[1:]))
        own_clips = None if clips is None else Clips(frames, clips.number[anchors], clips.place[indices])
        own_targets = None if targets is None else targets[anchors]
        return Batch(frames.rows(lambda tensor: tensor[:, 0]), own_targets, unseeded, own_clips)

    if is_packed(data):
        for packed_rows in own_rows:
            yield batch(torch.from_numpy(packed_rows), packed_pictures(data, packed_rows.ravel(), side))
        return
    streamed = _IndexedImages(data)
    loader = DataLoader(
        streamed,
        batch_sampler=(indices.ravel().tolist() for indices in own_rows),
        num_workers=workers,
        collate_fn=functools.partial(_stack, frames=1 if clips is None else frames, side=side),
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_outlive_signals,
    )
    with _without_the_script(streamed) if workers else nullcontext():
        batches = iter(loader)
    for loaded in batches:
        if isinstance(loaded, UserError):
            raise loaded
        indices, pictures, reasons = loaded
        for index, reason in reasons:
            if left_out is not None:
                left_out.add(index, reason)
        yield batch(indices, pictures)


def next_batch(batches: Iterator[Batch], stop: Stop) -> Batch | None:
    """Return the next batch; None if a signal has ended the workers that decode it.

    Raises:
        UserError: If something else has ended them.
    """
    try:
        return next(batches)
    except RuntimeError as error:
        if stop.requested:
            return None
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise UserError(
            "a process that decodes was killed, perhaps for want of memory; run the same command again, with fewer "
            "--workers"
        ) from None


@contextmanager
def _without_the_script(data: Dataset[Any]) -> Iterator[None]:
    """Keep workers that are started from running the main script again, as `spawn` does.

    A script without a guard would start its training once more in each worker, and its start would never end.

    Raises:
        UserError: If the workers need the script, because the data set's class is defined in it, and it has no guard.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if _refers_to(data, {"__main__", "__mp_main__"}):
        if file and "__main__" not in Path(file).read_text(encoding="utf-8", errors="replace"):
            raise UserError(
                f"{file}: its data set is read by worker processes, which run the script again; put what it does "
                "under `if __name__ == '__main__':`, or set workers to 0"
            )
        yield
        return
    spec = getattr(main, "__spec__", None)
    main.__spec__ = None
    if file is not None:
        del main.__file__
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file


def _refers_to(value: Any, modules: set[str]) -> bool:
    """Whether a value's pickle names a class or function of one of these modules."""
    found = False

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            nonlocal found
            found = found or module in modules
            return super().find_class(module, name)

    Reader(io.BytesIO(pickle.dumps(value))).load()
    return found


def _outlive_signals(_: int) -> None:
    """Leave it to the main process to end a worker: a terminal sends its signals to both."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class _ClipIndex:
    """For every frame of a data set, the number of its clip, its place in the clip and the clip's length."""

    def __init__(self, clip_of: Int[Tensor, "N"]) -> None:
        _, self.number, lengths = torch.unique_consecutive(clip_of, return_inverse=True, return_counts=True)
        self.starts = lengths.cumsum(0) - lengths
        self.place = torch.arange(len(clip_of)) - self.starts[self.number]
        self.length = lengths[self.number]


def _chosen_frames(
    order: Iterator[NDArray[np.int64]], clips: _ClipIndex, choose: ChooseFrames, *, seed: int, first: int
) -> Iterator[NDArray[np.int64]]:
    """Yield B×F frame indices per step: `order` draws a frame of each clip, `choose` the F frames to see."""
    for step, indices in enumerate(order, start=first):
        entropy = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(entropy >> 1))
        drawn = torch.from_numpy(indices)
        places = choose(clips.place[drawn], clips.length[drawn], generator)
        yield (clips.starts[clips.number[drawn]][:, None] + places).numpy()


def _order(length: int, batch_size: int, *, seed: int, first: int) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of each step's batch, from step `first` on; each epoch is a new permutation."""
    epoch, skip = divmod(first * batch_size, length)
    waiting = np.random.default_rng((seed, epoch)).permutation(length)[skip:]
    while True:
        while len(waiting) < batch_size:
            epoch += 1
            waiting = np.concatenate([waiting, np.random.default_rng((seed, epoch)).permutation(length)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


@final
class _IndexedImages(Dataset[Any]):
    """Images with their indices; the reason in place of an image that cannot be decoded.

    What ends the run is in that place too: an error that a worker raises would arrive as a traceback.
    """

    def __init__(self, data: ImageDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[int, Tensor | str | UserError]:
        try:
            return int(index), self.data[int(index)][0]
        except BadImage as error:  # only in data too large to be packed: packing has already dropped the others
            return int(index), str(error)
        except UserError as error:
            return int(index), error


def _stack(
    items: list[tuple[int, Tensor | str | UserError]], *, frames: int, side: int
) -> tuple[Tensor, Pictures, list[tuple[int, str]]] | UserError:
    """Return indices (B×F) and pictures (B·F) of the rows whose `frames` images can all be decoded.

    The third value lists the images that cannot be decoded, with the reasons. If an error ends the run, return it.
    """
    if failed := [item for _, item in items if isinstance(item, UserError)]:
        return failed[0]
    rows = [items[start : start + frames] for start in range(0, len(items), frames)]
    decoded = [[(index, image) for index, image in row if isinstance(image, Tensor)] for row in rows]
    whole = [row for row in decoded if len(row) == frames]
    pictures = of_any_sizes([image for row in whole for _, image in row], side)
    indices = torch.tensor([[index for index, _ in row] for row in whole], dtype=torch.int64).reshape(-1, frames)
    return indices, pictures, [(index, reason) for index, reason in items if isinstance(reason, str)]
