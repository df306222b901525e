"""A bare training step of a pretext task, the speed of a run of steps, and where their time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from pretext.system.precision import autocast
from pretext.tasks.base import Batch, Task
from pretext.training.config import TrainConfig
from pretext.training.optimisers import make_optimizers

LONGEST = 20
"""Operations that a profile names."""


class BareStep:
    """Losses, backward pass and optimiser steps of a task, without schedule, clipping, logging and checkpoints."""

    def __init__(self, model: Task, config: TrainConfig) -> None:
        """Make the optimisers; the model is put into channels-last layout and training mode in place."""
        self.model = model.to(memory_format=torch.channels_last).train()
        self.optimizers, self.precision = make_optimizers(model, config), config.precision

    def __call__(self, batch: Batch, *, progress: float = 0.0) -> None:
        """Take one step. The parts have names in a profile: losses, backward, update, after.

        Args:
            batch: The pictures, on the device of the model.
            progress: Share of the run that is done, 0 to 1.
        """
        losses = self.model.losses(batch)
        while True:
            with record_function("step: losses"), autocast(self.precision, batch.device):
                player, loss = next(losses, (None, None))
            if player is None or loss is None:
                break
            with record_function("step: backward"):
                self.optimizers[player].zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
            with record_function("step: update"):
                self.optimizers[player].step()
        with record_function("step: after"):
            self.model.after_step(progress)


def steady_rate(steps: Iterator[object], batch_size: int, *, warm_up: int, timed: int) -> float:
    """Return the pictures per second of `timed` steps after `warm_up` others."""
    for _ in islice(steps, warm_up):
        pass
    synchronise()
    started = time.perf_counter()
    for _ in islice(steps, timed):
        pass
    synchronise()
    return timed * batch_size / (time.perf_counter() - started)


def synchronise() -> None:
    """Wait for a GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def profiled(work: Callable[[], object]) -> str:
    """Return the table of the operations in which some work spends most time of its own, and the named parts of it."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as found:
        work()
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    averages = found.key_averages()
    total = sum(each.self_cpu_time_total for each in averages)
    parts = [each for each in averages if each.key.startswith("step: ")]
    lines = [f"{each.key:<16} {each.cpu_time_total / total:>6.1%}" for each in parts]
    table: str = averages.table(sort_by=by, row_limit=LONGEST, max_name_column_width=48)
    return "\n".join([*lines, table])
