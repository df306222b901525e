"""The tables of `benchmarks/timing/speed.py`: pretext tasks, probes, the linear solver, search."""

from __future__ import annotations

import dataclasses
import time
from functools import partial

import torch

from benchmarks.planning.adjusting import at_precision
from benchmarks.planning.probes import probe, probe_names
from benchmarks.timing.linear import print_linear
from benchmarks.timing.loading import print_loading
from benchmarks.timing.peers import print_peers
from benchmarks.timing.search import print_retrieval
from benchmarks.timing.steps import profiled
from benchmarks.timing.tasks import PROFILED, Load, fit_seconds, is_fitted, steps_of, task_speed
from pretext.datasets import at_size, open_dataset
from pretext.datasets.base import ImageDataset
from pretext.encoders import build_encoder
from pretext.system.command_line import parse
from pretext.system.errors import UserError, did_you_mean
from pretext.tasks import task_config, task_names

SLOW_PROBES = frozenset({"fine_tune", "detection", "segmentation", "low_shot", "svm"})
"""Probes that are timed only when named: they take minutes, or repeat the work of another probe."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """Time pretext tasks, probes and retrieval on this machine, beside reference implementations.

    `benchmarks/timing/tasks.py` explains the columns.

    Examples:
        python benchmarks/timing/speed.py --tasks context_encoder simclr --probes knn
        python benchmarks/timing/speed.py --loading --data folder:photos --image-size 224
    """

    tasks: tuple[str, ...] = ()
    """Pretext tasks to time; if empty, all that fit the encoder and the data."""
    probes: tuple[str, ...] = ()
    """Probes to time on random weights; if empty, all fast ones."""
    load: Load = dataclasses.field(default_factory=Load)
    data: str = "scenes?train=2048&val=256&test=512"
    """Data set spec, KIND[:PATH][?key=value&…]."""
    linear: bool = False
    """Time only the solver of the linear probe beside scikit-learn's, on 10,000 × 4,096 features."""
    retrieval: bool = False
    """Time only indexing and search beside FAISS and scikit-learn."""
    loading: bool = False
    """Time only decoding and views beside torchvision's and lightly's loaders; --data names photographs."""
    peers: bool = False
    """Time every comparison with other libraries, each in turns: training steps, loading at 224 px, the linear solver
    and search; --data names photographs."""
    profile: bool = False
    """Print in which operations the steps of --tasks, and the whole of --probes, spend their time."""
    workers: int = 2
    """Worker processes of each loader for --loading, at least 1."""
    vectors: tuple[int, ...] = (10_000,)
    """Index sizes for --retrieval, each at least 1000 vectors of 256 dimensions. A million needs 6 GB and minutes."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; give 1 or more")
        if not self.vectors or min(self.vectors) < 1000:
            raise ValueError(f"vectors is {self.vectors}; give one or more numbers, each at least 1000")


def speed_command(argv: list[str]) -> int:
    """Run the command; return the exit code."""
    options = parse(Speed, argv, prog="speed.py")
    load = options.load
    if options.linear:
        print_linear()
        return 0
    if options.retrieval:
        print_retrieval(options.vectors, options.data, load.encoder, load.image_size)
        return 0
    if options.peers:
        print_peers(options.data, load.precision)
        print()
        print_loading(options.data, side=224, workers=options.workers)
        print()
        print_linear()
        print()
        print_retrieval(options.vectors, options.data, load.encoder, load.image_size)
        return 0
    if options.loading:
        print_loading(options.data, side=load.image_size, workers=options.workers)
        return 0
    tasks, probes = options.tasks or tuple(task_names()), _probe_names(options)
    for task in tasks:
        task_config(task)
    if options.profile and not (options.tasks or options.probes):
        raise UserError("--profile needs --tasks or --probes: name what to look into")
    data = at_size(open_dataset(options.data), load.image_size, bad_images="skip")
    print(f"{_device_name()}, {torch.get_num_threads()} thread(s), PyTorch {torch.__version__}")
    print(
        f"{load.encoder} at {load.image_size} px, batches of {load.batch_size}, "
        f"{load.images} images per run, {load.repetitions} runs of each loop, {options.data}\n"
    )
    if options.profile:
        for task in options.tasks:
            print(f"{task}, {PROFILED} steps\n{profiled(steps_of(task, data, load))}\n", flush=True)
        for name in options.probes:
            print(f"{name} on random weights\n{profiled(partial(probe_seconds, name, data, load))}\n", flush=True)
        return 0
    width = max(len("pretext task"), *(len(task) for task in tasks))
    print(
        f"{'pretext task':<{width}} {'loop img/s':>11} {'min. img/s':>11} {'ratio':>6} {'views':>6} {'waiting':>8} "
        f"{'GFLOP/s':>8} {'peak MB':>8}"
    )
    for task in tasks:
        if is_fitted(task):
            images, seconds = fit_seconds(task, data, load)
            print(f"{task:<{width}} fitted once on {images:,} images in {seconds:.1f} s", flush=True)
            continue
        try:
            row = task_speed(task, data, load)
        except UserError as error:
            if options.tasks:
                raise
            print(f"{task:<{width}} left out: {error}")
            continue
        print(
            f"{row.task:<{width}} {row.loop:>11,.0f} {row.minimal:>11,.0f} {row.loop / row.minimal:>6.2f} "
            f"{row.views:>6.1%} {row.waiting:>8.1%} {row.flops / 1e9:>8,.1f} "
            f"{row.memory / 1e6:>8,.0f}",
            flush=True,
        )
    _print_probes(probes, data, options)
    return 0


def probe_seconds(name: str, data: ImageDataset, load: Load) -> float:
    """Return the seconds that a probe with default settings takes on random weights.

    Raises:
        UserError: If the data set lacks the annotations of the probe.
    """
    encoder = build_encoder(load.encoder, input_size=load.image_size, seed=0)
    timed = at_precision(probe(name), load.precision)
    if not timed.can_judge(data):
        raise UserError(f"probe {name} needs annotations that {data.spec} lacks; name another with --probes or --data")
    started = time.perf_counter()
    list(timed.evaluate(encoder, data))
    return time.perf_counter() - started


def _probe_names(options: Speed) -> tuple[str, ...]:
    known = [name for name in probe_names() if name != "inpainting"]
    for name in options.probes or ():
        if name not in known:
            raise UserError(f"unknown probe {name!r}; {did_you_mean(name, known)}")
    return options.probes or tuple(name for name in known if name not in SLOW_PROBES)


def _print_probes(names: tuple[str, ...], data: ImageDataset, options: Speed) -> None:
    counts = ", ".join(f"{len(data.split(name)):,} {name}" for name in ("train", "val", "test"))
    print(f"\n{'probe':<14} {'seconds':>8}   on {counts} images, random weights")
    for name in names:
        try:
            print(f"{name:<14} {probe_seconds(name, data, options.load):>8.1f}", flush=True)
        except UserError as error:
            if options.probes:
                raise
            print(f"{name:<14} left out: {error}")


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
