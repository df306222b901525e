"""Time the training loop of a pretext task beside a minimal loop.

The training loop (`pretext.training.loop`) runs without checkpoints and sample sheets; its log gives the times. The
minimal loop runs only losses, backward pass and optimiser steps, on batches in memory. The ratio of the two is the
cost of data loading, schedules and logging. All results are medians over the intervals of all repetitions, without
the first interval of each, which is the warm-up. The loops are measured alternately, so that other load on the machine
slows both. "Views" are all that a task does with a batch before the first layer of its
networks runs: crops, colour changes, masks, tiles.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks.timing.steps import BareStep, synchronise
from pretext.datasets.base import ImageDataset
from pretext.encoders import build_encoder
from pretext.system.device import device_of
from pretext.system.memory import peak_memory, reset_peak_memory
from pretext.system.precision import Precision
from pretext.tasks import build_task, task_class
from pretext.tasks.base import Batch, Fitted, Task, label_kind
from pretext.training.config import TrainConfig
from pretext.training.loading import load_batches
from pretext.training.loop import train

INTERVALS = 5
"""Timed intervals per run."""
PROFILED = 10
"""Steps of a profile."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """The training run that is timed."""

    images: int = 2560
    """Images per run; at least two batches."""
    encoder: str = "alexnet?width=0.25&stem_stride=1"
    """Architecture spec of the encoder."""
    image_size: int = 32
    """Image side in pixels."""
    batch_size: int = 128
    """Images per training step."""
    repetitions: int = 3
    """Runs of each loop; results are medians."""
    precision: Precision = "auto"
    """Number format of the layers in training, of other libraries' too; auto is float32, but for tasks on a GPU."""

    def __post_init__(self) -> None:
        if self.repetitions < 1:
            raise ValueError(f"repetitions is {self.repetitions}; it must be at least 1")
        if self.batch_size < 1 or self.images < 2 * self.batch_size:
            raise ValueError(
                f"images is {self.images} and batch_size {self.batch_size}; a run needs at least two steps"
            )

    @property
    def steps(self) -> int:
        """Training steps per run."""
        return self.images // self.batch_size

    @property
    def interval(self) -> int:
        """Training steps per timed interval."""
        return max(1, self.steps // INTERVALS)


@dataclasses.dataclass(frozen=True)
class TaskSpeed:
    """The results of one pretext task; medians."""

    task: str
    loop: float
    """Images per second through the training loop."""
    minimal: float
    """Images per second through the minimal loop."""
    views: float
    """Share of the minimal loop's time that is spent on views."""
    waiting: float
    """Share of the training loop's time that is spent waiting for data."""
    flops: float
    """Floating-point operations per second of the training loop, forward and backward."""
    memory: int
    """Peak bytes of the training loop: GPU memory, or without a GPU the memory of the whole process."""


def task_speed(task: str, data: ImageDataset, load: Load) -> TaskSpeed:
    """Time one pretext task in both loops, alternately.

    Args:
        task: Task spec.
        data: Images of size `load.image_size`.
        load: The training run.

    Raises:
        UserError: If the task does not fit the encoder or the data.
    """
    loop: list[float] = []
    minimal: list[Interval] = []
    waiting: list[float] = []
    memory, flops_per_image = 0, 0.0
    for _ in range(load.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            reset_peak_memory()
            train(task, load.encoder, data, _train_config(load), out, image_size=load.image_size)
            memory = max(memory, peak_memory())
            log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
            flops_per_image = json.loads((out / "run.json").read_text())["flops_per_image"]
        loop += [row["images_per_second"] for row in log[1:]]
        waiting += [row["data_share"] for row in log[1:]]
        minimal += list(minimal_loop(task, data, load))[1:]
    speed = statistics.median(loop)
    return TaskSpeed(
        task=task,
        loop=speed,
        minimal=statistics.median(part.speed for part in minimal),
        views=statistics.median(part.views for part in minimal),
        waiting=statistics.median(waiting),
        flops=speed * flops_per_image,
        memory=memory,
    )


def is_fitted(task: str) -> bool:
    """Whether a task takes no steps."""
    return issubclass(task_class(task), Fitted)


def fit_seconds(task: str, data: ImageDataset, load: Load) -> tuple[int, float]:
    """Return the number of images that a task without steps was fitted on, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        train(task, load.encoder, data, _train_config(load), Path(folder), image_size=load.image_size)
        run = json.loads((Path(folder) / "run.json").read_text())
    return run["images_seen"], run["wall_s"]


class Interval(NamedTuple):
    """One timed interval of the minimal loop."""

    speed: float
    """Images per second."""
    views: float
    """Share of the time that is spent on views."""


def minimal_loop(task: str, data: ImageDataset, load: Load) -> Iterator[Interval]:
    """Train a task on batches in memory, and yield the timed intervals.

    See `task_speed` for arguments and errors.
    """
    take_step, batches, device = _prepared(task, data, load)
    first_layer: list[float] = []

    def note_first_layer(module: nn.Module, _: object) -> None:
        if not first_layer and module in layers:
            synchronise()
            first_layer.append(time.perf_counter())

    layers = set(take_step.model.modules())
    hook = register_module_forward_pre_hook(note_first_layer)
    for part in range(load.steps // load.interval):
        synchronise()
        started, views = time.perf_counter(), 0.0
        for step in range(part * load.interval, (part + 1) * load.interval):
            batch = _drawn(batches, step, device)
            first_layer.clear()
            step_started = time.perf_counter()
            take_step(batch, progress=step / load.steps)
            views += first_layer[0] - step_started
        synchronise()
        seconds = time.perf_counter() - started
        yield Interval(load.interval * load.batch_size / seconds, views / seconds)
    hook.remove()


def steps_of(task: str, data: ImageDataset, load: Load) -> Callable[[], None]:
    """Return a function that takes `PROFILED` bare steps, after a few others as warm-up.

    See `task_speed` for arguments and errors.
    """
    take_step, batches, device = _prepared(task, data, load)

    def take(steps: int) -> None:
        for step in range(steps):
            take_step(_drawn(batches, step, device))
        synchronise()

    take(3)
    return lambda: take(PROFILED)


def _prepared(task: str, data: ImageDataset, load: Load) -> tuple[BareStep, list[Batch], torch.device]:
    """Return a step of a task and batches in memory."""
    config, device = _train_config(load), device_of("auto")
    encoder = build_encoder(load.encoder, input_size=load.image_size, seed=config.seed)
    model = build_task(task, encoder, labels=label_kind(data), seed=config.seed).to(device)
    return BareStep(model, config), _batches_in_memory(model, data, load.batch_size, device), device


def _drawn(batches: list[Batch], step: int, device: torch.device) -> Batch:
    """Return the batch of a step, with its own random numbers."""
    return dataclasses.replace(batches[step % len(batches)], generator=torch.Generator(device).manual_seed(step))


def _train_config(load: Load) -> TrainConfig:
    return TrainConfig(
        steps=load.steps,
        batch_size=load.batch_size,
        log_every=load.interval,
        samples=0,
        checkpoint_seconds=1e9,
        precision=load.precision,
    )


def _batches_in_memory(model: Task, data: ImageDataset, size: int, device: torch.device) -> list[Batch]:
    batches = load_batches(
        data,
        size,
        side=model.encoder.input_size,
        seed=0,
        first=0,
        rank=0,
        world=1,
        labels=model.needs_labels,
        workers=0,
        frames=model.frames,
        choose=model.choose_frames,
    )
    count = max(1, min(len(data) // size, 8))
    return [batch.to(device) for batch in islice(batches, count)]
