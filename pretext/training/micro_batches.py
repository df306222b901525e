"""The parts of a batch that are computed one after the other: their sizes and their seeds."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from pretext.datasets.base import ImageDataset
from pretext.system.distributed import rank, world
from pretext.system.errors import UserError
from pretext.tasks.base import Batch, Task
from pretext.training.config import TrainConfig
from pretext.training.flops import takes_one_image


def least_rows(
    model: Task, data: ImageDataset, image: Tensor, config: TrainConfig, device: torch.device, *, streamed: bool
) -> int:
    """Return the fewest rows of a micro-batch that the task can be trained on: 1 or 2. Packed data has all rows.

    Raises:
        UserError: If it needs two, and the settings give one.
    """
    rows = config.batch_size // world()
    smallest = min(_sizes(rows, config.accumulate))
    if (smallest > 1 and not streamed) or takes_one_image(model, data, image, device):
        return 1
    if smallest < 2:
        raise UserError(
            f"batch_size {config.batch_size} gives a part with a single image ({world()} processes, accumulate "
            f"{config.accumulate}), and this task needs two or more in each; give a larger batch size"
        )
    return 2


def _sizes(rows: int, accumulate: int, least: int = 1) -> list[int]:
    """Return the rows of each of `micro_batches`, the larger ones first; they differ by at most one."""
    parts = math.ceil(rows / max(math.ceil(rows / accumulate), least))
    return [rows // parts + (k < rows % parts) for k in range(parts)]


def equal_part(batch: Batch | None, rows: int, accumulate: int, least: int) -> Batch | None:
    """Cut a batch to at most `rows` rows, of which each micro-batch gets at least `least`; no row if there are none."""
    while rows and min(_sizes(rows, accumulate, least)) < least:
        rows -= 1
    return batch and batch.rows(itemgetter(slice(rows)))


def micro_batches(batch: Batch, config: TrainConfig, step: int, device: torch.device, least: int = 1) -> list[Batch]:
    """Split a batch into at most `config.accumulate` parts of nearly equal size, each with a generator of its own.

    The parts are numbered over all processes, so that several processes draw what one draws that accumulates as often.
    """
    first = rank() * config.accumulate
    sizes = _sizes(len(batch), config.accumulate, least)
    return [
        replace(
            batch.rows(itemgetter(slice(end - size, end))),
            generator=seeded_generator(device, config.seed, step, 0, first + k),
        )
        for k, (size, end) in enumerate(zip(sizes, itertools.accumulate(sizes), strict=True))
    ]


def seeded_generator(device: torch.device, *entropy: int) -> torch.Generator:
    """Return a generator seeded by some numbers. Torch's global generator gets the same seed."""
    state = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
    seed = int(state[0]) << 31 | int(state[1]) >> 1
    torch.manual_seed(seed)  # dropout and stochastic depth draw from the global generator
    return torch.Generator(device).manual_seed(seed)
