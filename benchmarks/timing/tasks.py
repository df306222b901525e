"""How fast a pretext task trains, beside what the same network and the same machine could do at best.

A task is trained by the real loop (`pretext.training.loop`, without checkpoints and sample sheets, timed by its log)
and, in turn with it, by the barest one: the same task's losses on batches that already lie in memory,
backward, step. The ratio of the two is what reading data, schedules and logging cost. Figures are medians
over all intervals of all repetitions but each one's first, which warms up. The ceiling is measured in the
same turns, so that whatever else runs on the machine slows all three. Views are all that a task does with a
batch before the first layer of its networks runs: crops, colours, holes, tiles.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pretext.datasets.base import ImageDataset
from pretext.encoders import build_encoder
from pretext.system.memory import peak_memory, reset_peak_memory
from pretext.tasks import build_task, task_class
from pretext.tasks.base import Batch, Fitted, Task, label_kind
from pretext.training.config import TrainConfig
from pretext.training.loading import load_batches
from pretext.training.loop import make_optimizers, train

MATRIX = 1024
"""Side of the matrices whose product is the machine's ceiling."""
INTERVALS = 5
"""Parts that a run is timed in."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """What is trained for the clock."""

    images: int = 2560
    """Pictures a run."""
    encoder: str = "alexnet?width=0.25&stem_stride=1"
    """Encoder spec."""
    image_size: int = 32
    """Side in pixels."""
    batch_size: int = 128
    """Pictures a step."""
    repetitions: int = 3
    """Runs of each loop, in turn."""

    def __post_init__(self) -> None:
        if self.repetitions < 1:
            raise ValueError(f"repetitions is {self.repetitions}; at least 1 is needed")
        if self.batch_size < 1 or self.images < 2 * self.batch_size:
            raise ValueError(f"images is {self.images} and batch_size {self.batch_size}; at least two steps are needed")

    @property
    def steps(self) -> int:
        """Steps of a run."""
        return self.images // self.batch_size

    @property
    def interval(self) -> int:
        """Steps that are timed together."""
        return max(1, self.steps // INTERVALS)


@dataclasses.dataclass(frozen=True)
class TaskSpeed:
    """One pretext task's figures; medians."""

    task: str
    loop: float
    """Pictures a second through the real loop."""
    bare: float
    """Pictures a second through the bare one."""
    views: float
    """Share of the bare loop's time that goes into views."""
    waiting: float
    """Share of the real loop's time that it waits for data."""
    flops: float
    """Floating-point operations a second in the real loop, forward and backward."""
    ceiling: float
    """The same of matrix products, measured in turn with the loops."""
    memory: int
    """Peak bytes while the real loop ran: of the accelerator, else of the whole process, PyTorch included."""


def task_speed(task: str, data: ImageDataset, load: Load) -> TaskSpeed:
    """Time one pretext task by both loops, in turn.

    Args:
        task: Its spec.
        data: Its pictures are at the size that is asked for.
        load: How much of it.

    Raises:
        UserError: If the task does not fit the encoder or the data.
    """
    loop: list[float] = []
    bare: list[Bare] = []
    waiting: list[float] = []
    ceilings: list[float] = []
    memory, flops_per_image = 0, 0.0
    for _ in range(load.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            ceilings.append(matrix_product_rate())
            reset_peak_memory()
            train(task, load.encoder, data, _train_config(load), out, image_size=load.image_size)
            memory = max(memory, peak_memory())
            log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
            flops_per_image = json.loads((out / "run.json").read_text())["flops_per_image"]
        loop += [row["images_per_second"] for row in log[1:]]
        waiting += [row["data_share"] for row in log[1:]]
        ceilings.append(matrix_product_rate())
        bare += list(bare_loop(task, data, load))[1:]
    speed = statistics.median(loop)
    return TaskSpeed(
        task=task,
        loop=speed,
        bare=statistics.median(part.speed for part in bare),
        views=statistics.median(part.views for part in bare),
        waiting=statistics.median(waiting),
        flops=speed * flops_per_image,
        ceiling=statistics.median(ceilings),
        memory=memory,
    )


def is_fitted(task: str) -> bool:
    """Whether a task takes no steps."""
    return issubclass(task_class(task), Fitted)


def fit_seconds(task: str, data: ImageDataset, load: Load) -> tuple[int, float]:
    """Return how many pictures a task without steps was fitted on, and how long that took."""
    with tempfile.TemporaryDirectory() as folder:
        train(task, load.encoder, data, _train_config(load), Path(folder), image_size=load.image_size)
        about = json.loads((Path(folder) / "run.json").read_text())
    return about["images_seen"], about["wall_s"]


class Bare(NamedTuple):
    """One interval of the bare loop."""

    speed: float
    """Pictures a second."""
    views: float
    """Share of the time that goes into views."""


def bare_loop(task: str, data: ImageDataset, load: Load) -> Iterator[Bare]:
    """Yield what a task's steps on batches that lie in memory take, interval by interval.

    Arguments and errors as for `task_speed`.
    """
    config = _train_config(load)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = build_encoder(load.encoder, input_size=load.image_size, seed=config.seed)
    model = build_task(task, encoder, labels=label_kind(data), seed=config.seed).to(device)
    model = model.to(memory_format=torch.channels_last).train()
    optimizers = make_optimizers(model, config)
    batches = _batches_in_memory(model, data, load.batch_size, device)
    first_layer: list[float] = []

    def note(module: nn.Module, _: object) -> None:
        if not first_layer and module in layers:
            _synchronise(device)
            first_layer.append(time.perf_counter())

    layers = set(model.modules())
    hook = register_module_forward_pre_hook(note)
    for part in range(load.steps // load.interval):
        _synchronise(device)
        started, views = time.perf_counter(), 0.0
        for step in range(part * load.interval, (part + 1) * load.interval):
            batch = batches[step % len(batches)]._replace(generator=torch.Generator(device).manual_seed(step))
            first_layer.clear()
            begun = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                turns = model.losses(batch)
                for player, loss in turns:
                    optimizers[player].zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizers[player].step()
            model.after_step(step / load.steps)
            views += first_layer[0] - begun
        _synchronise(device)
        seconds = time.perf_counter() - started
        yield Bare(load.interval * load.batch_size / seconds, views / seconds)
    hook.remove()


def matrix_product_rate() -> float:
    """Return floating-point operations a second in the product of two large float32 matrices: the median."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    a, b = (torch.rand(MATRIX, MATRIX, device=device) for _ in range(2))
    times = []
    for _ in range(12):
        _synchronise(device)
        started = time.perf_counter()
        a @ b
        _synchronise(device)
        times.append(time.perf_counter() - started)
    return 2 * MATRIX**3 / statistics.median(times[2:])


def _train_config(load: Load) -> TrainConfig:
    return TrainConfig(
        steps=load.steps,
        batch_size=load.batch_size,
        log_every=load.interval,
        samples=0,
        checkpoint_seconds=1e9,
    )


def _batches_in_memory(model: Task, data: ImageDataset, size: int, device: torch.device) -> list[Batch]:
    batches = load_batches(
        data,
        size,
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
    return [batch.map(lambda tensor: tensor.to(device)) for batch in islice(batches, count)]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
