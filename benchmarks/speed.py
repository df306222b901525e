"""How fast pretraining is, beside what the same network and the same machine could do at best.

python benchmarks/speed.py [--tasks A B …] [--probes A B …] [--images N] [--encoder SPEC] [--image-size N]
                           [--batch-size N] [--data SPEC] [--repetitions N]
python benchmarks/speed.py --linear
python benchmarks/speed.py --retrieval [--vectors N …]

A task is trained by the real loop (`pretext.train`, without checkpoints and sample sheets, timed by its log)
and, in turn with it, by the barest one: the same task's losses on batches that already lie in memory,
backward, step. The ratio of the two is what reading data, schedules and logging cost. Figures are medians
over all intervals of all repetitions but each one's first, which warms up. The ceiling is measured in the
same turns, so that whatever else runs on the machine slows all three. Views are all that a task does with a
batch before the first layer of its networks runs: crops, colours, holes, tiles. `--linear` times nothing but the
linear probe's solver, beside scikit-learn's LogisticRegression; `--retrieval` nothing but indexing and searching,
beside FAISS called directly and scikit-learn's brute force.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

if not __package__:  # started as a file: the import path begins with this folder, where it needs the one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks.linear_speed import print_linear
from benchmarks.recipes import judge_names, probe
from benchmarks.search_speed import print_retrieval
from pretext.command_line import parse
from pretext.datasets import at_size, open_dataset
from pretext.datasets.base import ImageDataset
from pretext.encoders import build_encoder
from pretext.errors import UserError, did_you_mean, run_command
from pretext.loading import Loaded, load_batches
from pretext.memory import peak_memory, reset_peak_memory
from pretext.tasks import build_task, task_config, task_kinds, task_names
from pretext.tasks.base import Fitted, Task, label_kind
from pretext.train import make_optimizers, train
from pretext.train_config import TrainConfig

MATRIX = 1024
"""Side of the matrices whose product is the machine's ceiling."""
INTERVALS = 5
"""Parts that a run is timed in."""
SLOW_PROBES = frozenset({"fine_tune", "detection", "segmentation", "low_shot", "svm"})
"""Are timed only where they are asked for: they take minutes, or repeat another's work."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """Time pretext tasks and probes on this machine."""

    tasks: tuple[str, ...] = ()
    """Pretext tasks; all that fit the encoder and the data where none is named."""
    probes: tuple[str, ...] = ()
    """Probes to time on random weights; the quick ones where none is named."""
    images: int = 2560
    """Pictures a run."""
    encoder: str = "alexnet?width=0.25&stem_stride=1"
    """Encoder spec."""
    image_size: int = 32
    """Side in pixels."""
    batch_size: int = 128
    """Pictures a step."""
    data: str = "scenes?train=2048&val=256&test=512"
    """Data set: KIND[:PATH][?key=value&…]."""
    repetitions: int = 3
    """Runs of each loop, in turn."""
    linear: bool = False
    """Time the linear probe's solver beside scikit-learn's on 10,000 × 4,096 features, and nothing else."""
    retrieval: bool = False
    """Time indexing and searching beside FAISS and scikit-learn, and nothing else."""
    vectors: tuple[int, ...] = (10_000,)
    """For that, how many vectors of 256 numbers are searched; an index each. A million takes 6 GB and minutes."""

    def __post_init__(self) -> None:
        if self.repetitions < 1:
            raise ValueError(f"repetitions is {self.repetitions}; at least 1 is needed")
        if self.batch_size < 1 or self.images < 2 * self.batch_size:
            raise ValueError(f"images is {self.images} and batch_size {self.batch_size}; at least two steps are needed")
        if not self.vectors or min(self.vectors) < 1000:
            raise ValueError(f"vectors is {self.vectors}; give one number or more, each at least 1000")


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


def main(argv: list[str]) -> int:
    """Run the command; return the exit code."""
    options = parse(Speed, argv, prog="speed.py")
    if options.linear:
        print_linear()
        return 0
    if options.retrieval:
        print_retrieval(options.vectors, options.data, options.encoder, options.image_size)
        return 0
    tasks, probes = options.tasks or tuple(task_names()), _probe_names(options)
    for task in tasks:
        task_config(task)
    data = at_size(open_dataset(options.data), options.image_size, bad_images="skip")
    print(
        f"{_device_name()}, {torch.get_num_threads()} thread(s), PyTorch {torch.__version__}; "
        f"ceiling: products of {MATRIX}×{MATRIX} float32 matrices"
    )
    print(
        f"{options.encoder} at {options.image_size} px, batches of {options.batch_size}, "
        f"{options.images} pictures a run, {options.repetitions} runs of each loop, {options.data}\n"
    )
    width = max(len("pretext task"), *(len(task) for task in tasks))
    print(
        f"{'pretext task':<{width}} {'loop img/s':>11} {'bare img/s':>11} {'ratio':>6} {'views':>6} {'waiting':>8} "
        f"{'GFLOP/s':>8} {'ceiling':>8} {'share':>6} {'peak MB':>8}"
    )
    for task in tasks:
        if is_fitted(task):
            pictures, seconds = fit_seconds(task, data, options)
            print(f"{task:<{width}} fitted once, on {pictures:,} pictures, in {seconds:.1f} s", flush=True)
            continue
        try:
            row = task_speed(task, data, options)
        except UserError as error:
            if options.tasks:
                raise
            print(f"{task:<{width}} left out: {error}")
            continue
        print(
            f"{row.task:<{width}} {row.loop:>11,.0f} {row.bare:>11,.0f} {row.loop / row.bare:>6.2f} "
            f"{row.views:>6.1%} {row.waiting:>8.1%} {row.flops / 1e9:>8,.1f} {row.ceiling / 1e9:>8,.1f} "
            f"{row.flops / row.ceiling:>6.0%} {row.memory / 1e6:>8,.0f}",
            flush=True,
        )
    _print_probes(probes, data, options)
    return 0


def task_speed(task: str, data: ImageDataset, options: Speed) -> TaskSpeed:
    """Time one pretext task by both loops, in turn.

    Args:
        task: Its spec.
        data: Its pictures are at the size that is asked for.
        options: How much of it.

    Raises:
        UserError: If the task does not fit the encoder or the data.
    """
    loop: list[float] = []
    bare: list[Bare] = []
    waiting: list[float] = []
    ceilings: list[float] = []
    memory, flops_per_image = 0, 0.0
    for _ in range(options.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            ceilings.append(matrix_product_rate())
            reset_peak_memory()
            train(task, options.encoder, data, _train_config(options), out, image_size=options.image_size)
            memory = max(memory, peak_memory())
            log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
            flops_per_image = json.loads((out / "run.json").read_text())["flops_per_image"]
        loop += [row["images_per_second"] for row in log[1:]]
        waiting += [row["data_share"] for row in log[1:]]
        ceilings.append(matrix_product_rate())
        bare += list(bare_loop(task, data, options))[1:]
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
    return any(issubclass(kind, Fitted) for kind in task_kinds(task))


def fit_seconds(task: str, data: ImageDataset, options: Speed) -> tuple[int, float]:
    """Return how many pictures a task without steps was fitted on, and how long that took."""
    with tempfile.TemporaryDirectory() as folder:
        train(task, options.encoder, data, _train_config(options), Path(folder), image_size=options.image_size)
        about = json.loads((Path(folder) / "run.json").read_text())
    return about["images_seen"], about["wall_s"]


class Bare(NamedTuple):
    """One interval of the bare loop."""

    speed: float
    """Pictures a second."""
    views: float
    """Share of the time that goes into views."""


def bare_loop(task: str, data: ImageDataset, options: Speed) -> Iterator[Bare]:
    """Yield what a task's steps on batches that lie in memory take, interval by interval.

    Arguments and errors as for `task_speed`.
    """
    config = _train_config(options)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = build_encoder(options.encoder, input_size=options.image_size, seed=config.seed)
    model = build_task(task, encoder, labels=label_kind(data), seed=config.seed).to(device)
    model = model.to(memory_format=torch.channels_last).train()
    optimizers = make_optimizers(model, config)
    batches = _batches_in_memory(model, data, options.batch_size, device)
    interval = _interval(options)
    first_layer: list[float] = []

    def note(module: nn.Module, _: object) -> None:
        if not first_layer and module in layers:
            _synchronise(device)
            first_layer.append(time.perf_counter())

    layers = set(model.modules())
    hook = register_module_forward_pre_hook(note)
    for part in range(_steps(options) // interval):
        _synchronise(device)
        started, views = time.perf_counter(), 0.0
        for step in range(part * interval, (part + 1) * interval):
            batch = batches[step % len(batches)].batch(torch.Generator(device).manual_seed(step))
            first_layer.clear()
            begun = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                turns = model.losses(batch)
                for player, loss in turns:
                    optimizers[player].zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizers[player].step()
            model.after_step(step / _steps(options))
            views += first_layer[0] - begun
        _synchronise(device)
        seconds = time.perf_counter() - started
        yield Bare(interval * options.batch_size / seconds, views / seconds)
    hook.remove()


def probe_seconds(name: str, data: ImageDataset, options: Speed) -> float:
    """Return how long a probe, with its defaults, takes to judge random weights."""
    encoder = build_encoder(options.encoder, input_size=options.image_size, seed=0)
    judge = probe(name)
    if not judge.can_judge(data):
        raise UserError(f"{name} needs annotations that {data.spec} lacks")
    started = time.perf_counter()
    list(judge.evaluate(encoder, data))
    return time.perf_counter() - started


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


def _probe_names(options: Speed) -> tuple[str, ...]:
    known = [name for name in judge_names() if name != "inpainting"]
    for name in options.probes or ():
        if name not in known:
            raise UserError(f"unknown probe {name!r}; {did_you_mean(name, known)}")
    return options.probes or tuple(name for name in known if name not in SLOW_PROBES)


def _print_probes(names: tuple[str, ...], data: ImageDataset, options: Speed) -> None:
    counts = ", ".join(f"{len(data.split(name)):,} {name}" for name in ("train", "val", "test"))
    print(f"\n{'probe':<14} {'seconds':>8}   of {counts} pictures, random weights")
    for name in names:
        try:
            print(f"{name:<14} {probe_seconds(name, data, options):>8.1f}", flush=True)
        except UserError as error:
            if options.probes:
                raise
            print(f"{name:<14} left out: {error}")


def _train_config(options: Speed) -> TrainConfig:
    return TrainConfig(
        steps=_steps(options),
        batch_size=options.batch_size,
        log_every=_interval(options),
        samples=0,
        checkpoint_seconds=1e9,
    )


def _steps(options: Speed) -> int:
    return options.images // options.batch_size


def _interval(options: Speed) -> int:
    return max(1, _steps(options) // INTERVALS)


def _batches_in_memory(model: Task, data: ImageDataset, size: int, device: torch.device) -> list[Loaded]:
    loaded = load_batches(
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
    return [each.each(lambda part: part.to(device)) for each in islice(loaded, count)]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    run_command(main)
